-- The moments before $as_of at which a visit took a step of a funnel; $steps are event names joined by commas. Each moment
-- stands under its item's category, and one without an item under every category of its visit.
with stepped as (
    select
        session_events.person_id,
        session_events.session_id,
        session_events.event_name,
        session_events.event_timestamp,
        case when session_events.item_id is not null then coalesce(items.item_category, 'unknown') end as item_category
    from session_events
    left join items on session_events.item_id = items.item_id
    where instr(concat(',', $steps, ','), concat(',', session_events.event_name, ',')) > 0
),
looked_at as (
    select distinct person_id, session_id, item_category
    from stepped
    where item_category is not null
)
select distinct
    stepped.person_id,
    stepped.session_id,
    stepped.event_name,
    stepped.event_timestamp,
    coalesce(stepped.item_category, looked_at.item_category, 'unknown') as item_category,
    coalesce(sessions.device_category, 'unknown') as device_category,
    sessions.channel
from stepped
join sessions on stepped.person_id = sessions.person_id and stepped.session_id = sessions.session_id
left join looked_at
    on stepped.item_category is null
    and stepped.person_id = looked_at.person_id
    and stepped.session_id = looked_at.session_id
