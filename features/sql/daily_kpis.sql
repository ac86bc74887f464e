-- Page views, visitors, orders and revenue of each day and channel before $as_of; visitors do not add up over days.
select
    cast(event_timestamp as date) as day,
    coalesce(medium, 'unknown') as channel,
    cast(sum(case when event_name = 'page_view' then 1 else 0 end) as bigint) as page_views,
    cast(sum(case when event_name = 'view_item' then 1 else 0 end) as bigint) as item_views,
    cast(count(distinct person_id) as bigint) as visitors,
    cast(count(distinct case when event_name = 'purchase' then person_id end) as bigint) as buyers,
    cast(count(distinct case when event_name = 'purchase' then transaction_id end) as bigint) as orders,
    sum(case when event_name = 'purchase' then quantity * coalesce(price, 0.0) else 0.0 end) as revenue
from known_events
group by cast(event_timestamp as date), coalesce(medium, 'unknown')
order by day, channel
