-- Each day before $as_of on which a person bought: how many orders, units and money; refunds are not taken off.
select
    person_id,
    cast(event_timestamp as date) as day,
    cast(count(distinct transaction_id) as bigint) as n_orders,
    sum(quantity) as units,
    sum(quantity * coalesce(price, 0.0)) as spend
from known_events
where event_name = 'purchase'
group by person_id, cast(event_timestamp as date)
