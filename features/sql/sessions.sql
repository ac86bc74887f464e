-- Visits before $as_of. The channel is the medium, else the source; a visit that has neither came direct.
with described as (
    select
        person_id,
        session_id,
        min(event_timestamp) as started_at,
        max(event_timestamp) as ended_at,
        cast(count(*) as bigint) as n_events,
        cast(sum(case when event_name = 'page_view' then 1 else 0 end) as bigint) as n_page_views,
        cast(sum(case when event_name = 'view_item' then 1 else 0 end) as bigint) as n_views,
        cast(sum(case when event_name = 'add_to_cart' then 1 else 0 end) as bigint) as n_carts,
        cast(sum(case when event_name = 'purchase' then 1 else 0 end) as bigint) as n_purchases,
        cast(count(distinct item_id) as bigint) as n_items,
        sum(case when event_name = 'purchase' then quantity * coalesce(price, 0.0) else 0.0 end) as revenue,
        max_by(source, position) filter (where source is not null) as source,
        max_by(medium, position) filter (where medium is not null) as medium,
        max_by(device_category, position) filter (where device_category is not null) as device_category
    from session_events
    group by person_id, session_id
)
select *, coalesce(nullif(medium, '(none)'), nullif(source, '(direct)'), 'direct') as channel
from described
