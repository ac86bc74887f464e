-- Units and revenue per item, location and day before $as_of: purchases less refunds (on the day of the refund), never
-- below zero, days without a sale filled with zero from the first day of the series to the day before $as_of.
with sold as (
    select
        known_events.item_id,
        coalesce(known_events.location_id, '') as location_id,
        cast(known_events.event_timestamp as date) as day,
        sum(case when event_name = 'purchase' then quantity else -quantity end) as quantity,
        sum(case when event_name = 'purchase' then quantity else -quantity end * coalesce(known_events.price, 0.0))
            as revenue
    from known_events
    left join items on known_events.item_id = items.item_id
    where event_name in ('purchase', 'refund')
        and cast(event_timestamp as date) < cast(cast($as_of as timestamp) as date)
        and coalesce(items.availability, 'in_stock') <> 'hidden'
    group by known_events.item_id, coalesce(known_events.location_id, ''), cast(known_events.event_timestamp as date)
),
series as (
    select item_id, location_id, min(day) as first_day
    from sold
    group by item_id, location_id
),
filled as (
    select
        item_id,
        location_id,
        explode(
            sequence(first_day, cast(cast($as_of as timestamp) as date) - interval 1 day, interval 1 day)
        ) as day
    from series
)
select
    filled.item_id,
    filled.location_id,
    cast(filled.day as date) as day,
    greatest(coalesce(sold.quantity, 0.0), 0.0) as quantity,
    coalesce(sold.revenue, 0.0) as revenue
from filled
left join sold
    on filled.item_id = sold.item_id and filled.location_id = sold.location_id and filled.day = sold.day
