-- One row per item seen before $as_of: how often it was viewed, put in a cart and bought, and how lately.
with aged as (
    select
        item_id,
        person_id,
        event_name,
        quantity,
        price,
        event_timestamp,
        event_id,
        unix_date(cast(cast($as_of as timestamp) as date)) - unix_date(cast(event_timestamp as date)) as age_days
    from known_events
    where item_id is not null
)
select
    item_id,
    cast(sum(case when event_name = 'view_item' and age_days <= 28 then 1 else 0 end) as bigint) as n_views_28d,
    cast(sum(case when event_name = 'add_to_cart' and age_days <= 28 then 1 else 0 end) as bigint) as n_carts_28d,
    cast(sum(case when event_name = 'purchase' then 1 else 0 end) as bigint) as n_purchases,
    cast(sum(case when event_name = 'purchase' and age_days <= 7 then 1 else 0 end) as bigint) as n_purchases_7d,
    cast(sum(case when event_name = 'purchase' and age_days <= 28 then 1 else 0 end) as bigint) as n_purchases_28d,
    cast(count(distinct case when event_name = 'purchase' then person_id end) as bigint) as n_buyers,
    sum(case when event_name = 'purchase' and age_days <= 28 then quantity else 0.0 end) as units_28d,
    max_by(price, (event_timestamp, event_id)) filter (where price is not null) as last_price,
    cast(min(age_days) as bigint) as days_since_last_event,
    cast(max(age_days) as bigint) as days_since_first_event
from aged
group by item_id
