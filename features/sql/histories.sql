-- What each person did with which item before $as_of, in order of time, hidden items left out; and the order or visit in
-- which it happened.
select
    known_events.person_id,
    known_events.item_id,
    known_events.event_name,
    known_events.event_timestamp,
    coalesce(
        transaction_id,
        session_id,
        concat(person_id, '#', cast(cast(event_timestamp as date) as string))
    ) as visit_id
from known_events
left join items on known_events.item_id = items.item_id
where event_name in ('view_item', 'add_to_cart', 'purchase')
    and coalesce(items.availability, 'in_stock') <> 'hidden'
order by person_id, event_timestamp, event_id
