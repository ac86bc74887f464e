-- One row per person who bought before $as_of: days with an order, what they were worth, and revenue less refunds.
-- Days are counted to the last day known.
with dated as (
    select
        *,
        unix_date(day) - min(unix_date(day)) over (partition by person_id) as days_after_first,
        unix_date(cast(cast($as_of as timestamp) - interval 1 second as date)) - unix_date(day) as age_days
    from purchase_days
),
refunded as (
    select person_id, sum(quantity * coalesce(price, 0.0)) as refunds
    from known_events
    where event_name = 'refund'
    group by person_id
),
bought as (
    select
        person_id,
        cast(sum(n_orders) as bigint) as n_orders,
        cast(count(*) as bigint) as n_order_days,
        cast(max(age_days) as bigint) as days_since_first_order,
        cast(min(age_days) as bigint) as days_since_last_order,
        avg(case when days_after_first > 0 then spend end) as repeat_day_spend,
        sum(spend) as spend
    from dated
    group by person_id
)
select
    bought.person_id,
    n_orders,
    n_order_days,
    days_since_first_order,
    days_since_last_order,
    repeat_day_spend,
    spend - coalesce(refunds, 0.0) as net_spend
from bought
left join refunded on bought.person_id = refunded.person_id
