-- What each person did with each item before $as_of, hidden items left out: counts per event and the last time.
select
    known_events.person_id,
    known_events.item_id,
    cast(sum(case when event_name = 'view_item' then 1 else 0 end) as bigint) as n_views,
    cast(sum(case when event_name = 'add_to_cart' then 1 else 0 end) as bigint) as n_carts,
    cast(sum(case when event_name = 'purchase' then 1 else 0 end) as bigint) as n_purchases,
    max(event_timestamp) as last_timestamp
from known_events
left join items on known_events.item_id = items.item_id
where event_name in ('view_item', 'add_to_cart', 'purchase')
    and coalesce(items.availability, 'in_stock') <> 'hidden'
group by known_events.person_id, known_events.item_id
