-- The numbers that a shop is run by, over all days before $as_of: visitors are counted once, never summed over days.
with visited as (
    select
        cast(count(*) as bigint) as n_sessions,
        cast(coalesce(sum(case when n_purchases > 0 then 1 else 0 end), 0) as bigint) as n_buying_sessions,
        cast(count(distinct person_id) as bigint) as visitors,
        cast(coalesce(sum(n_page_views), 0) as bigint) as n_page_views,
        cast(coalesce(sum(n_views), 0) as bigint) as n_item_views
    from sessions
),
per_buyer as (
    select person_id, count(*) as n_orders, sum(revenue) as revenue
    from order_totals
    group by person_id
),
bought as (
    select
        cast(count(*) as bigint) as buyers,
        cast(coalesce(sum(n_orders), 0) as bigint) as orders,
        cast(coalesce(sum(case when n_orders > 1 then 1 else 0 end), 0) as bigint) as n_repeat_buyers,
        coalesce(sum(revenue), 0.0) as revenue
    from per_buyer
),
refunded as (
    select coalesce(sum(quantity * coalesce(price, 0.0)), 0.0) as refunds
    from known_events
    where event_name = 'refund'
)
select
    case when n_page_views > 0 then n_page_views else n_item_views end as page_views,
    visitors,
    n_sessions as sessions,
    orders,
    buyers,
    revenue,
    refunds,
    revenue - refunds as net_revenue,
    cast(n_buying_sessions as double) / nullif(n_sessions, 0) as conversion_per_session,
    cast(buyers as double) / nullif(visitors, 0) as conversion_per_visitor,
    revenue / nullif(orders, 0) as average_order_value,
    cast(n_repeat_buyers as double) / nullif(buyers, 0) as repeat_rate,
    (revenue - refunds) / nullif(buyers, 0) as realised_ltv
from visited
cross join bought
cross join refunded
