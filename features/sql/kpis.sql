-- The numbers that a shop is run by, over all days before $as_of: visitors are counted once, never summed over days.
with activity as (
    select
        cast(sum(case when event_name = 'page_view' then 1 else 0 end) as bigint) as n_page_views,
        cast(sum(case when event_name = 'view_item' then 1 else 0 end) as bigint) as n_item_views,
        cast(count(distinct person_id) as bigint) as visitors,
        cast(count(distinct case when event_name = 'purchase' then person_id end) as bigint) as buyers,
        cast(count(distinct case when event_name = 'purchase' then transaction_id end) as bigint) as orders,
        sum(case when event_name = 'purchase' then quantity * coalesce(price, 0.0) else 0.0 end) as revenue,
        sum(case when event_name = 'refund' then quantity * coalesce(price, 0.0) else 0.0 end) as refunds
    from known_events
),
session_totals as (
    select
        cast(count(*) as bigint) as n_sessions,
        cast(sum(case when n_purchases > 0 then 1 else 0 end) as bigint) as n_buying_sessions
    from sessions
),
orders_per_buyer as (
    select person_id, count(distinct transaction_id) as n_orders
    from known_events
    where event_name = 'purchase'
    group by person_id
),
repeats as (
    select cast(sum(case when n_orders > 1 then 1 else 0 end) as bigint) as n_repeat_buyers
    from orders_per_buyer
)
select
    case when n_page_views > 0 then n_page_views else n_item_views end as page_views,
    visitors,
    n_sessions as sessions,
    orders,
    buyers,
    revenue,
    refunds,
    cast(n_buying_sessions as double) / nullif(n_sessions, 0) as conversion_per_session,
    cast(buyers as double) / nullif(visitors, 0) as conversion_per_visitor,
    revenue / nullif(orders, 0) as average_order_value,
    cast(n_repeat_buyers as double) / nullif(buyers, 0) as repeat_rate
from activity
cross join session_totals
cross join repeats
