-- Which items met in one order, or else in one visit, before $as_of, hidden items left out.
select distinct
    coalesce(
        transaction_id,
        session_id,
        concat(person_id, '#', cast(cast(event_timestamp as date) as string))
    ) as visit_id,
    known_events.item_id
from known_events
left join items on known_events.item_id = items.item_id
where event_name in ('view_item', 'add_to_cart', 'purchase')
    and coalesce(items.availability, 'in_stock') <> 'hidden'
