-- Visits before $as_of: the source's session_id, else a new one after a pause of more than 30 minutes.
with gaps as (
    select
        *,
        row_number() over (partition by person_id, session_id order by event_timestamp, event_id) as position,
        lag(event_timestamp) over (
            partition by person_id, session_id order by event_timestamp, event_id
        ) as previous_timestamp
    from known_events
),
numbered as (
    select
        *,
        sum(
            case
                when previous_timestamp is null or event_timestamp > previous_timestamp + interval 30 minutes then 1
                else 0
            end
        ) over (
            partition by person_id, session_id
            order by position
            rows between unbounded preceding and current row
        ) as pause_number
    from gaps
)
select
    person_id,
    coalesce(session_id, concat(person_id, '#', cast(cast(pause_number as bigint) as string))) as session_id,
    min(event_timestamp) as started_at,
    max(event_timestamp) as ended_at,
    cast(count(*) as bigint) as n_events,
    cast(sum(case when event_name = 'view_item' then 1 else 0 end) as bigint) as n_views,
    cast(sum(case when event_name = 'add_to_cart' then 1 else 0 end) as bigint) as n_carts,
    cast(sum(case when event_name = 'purchase' then 1 else 0 end) as bigint) as n_purchases,
    cast(count(distinct item_id) as bigint) as n_items,
    sum(case when event_name = 'purchase' then quantity * coalesce(price, 0.0) else 0.0 end) as revenue,
    max_by(source, position) filter (where source is not null) as source,
    max_by(medium, position) filter (where medium is not null) as medium,
    max_by(device_category, position) filter (where device_category is not null) as device_category
from numbered
group by
    person_id,
    coalesce(session_id, concat(person_id, '#', cast(cast(pause_number as bigint) as string)))
