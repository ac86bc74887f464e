-- Visits, visitors, orders, revenue and refunds of each day and channel before $as_of; visitors and buyers do not add up
-- over days.
select
    day,
    channel,
    cast(sum(page_views) as bigint) as page_views,
    cast(sum(item_views) as bigint) as item_views,
    cast(count(distinct case when sessions > 0 then person_id end) as bigint) as visitors,
    cast(sum(sessions) as bigint) as sessions,
    cast(sum(buying_sessions) as bigint) as buying_sessions,
    cast(count(distinct case when orders > 0 then person_id end) as bigint) as buyers,
    cast(sum(orders) as bigint) as orders,
    sum(revenue) as revenue,
    sum(refunds) as refunds
from daily_activity
group by day, channel
order by day, channel
