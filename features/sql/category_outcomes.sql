-- Every person and category of which the person bought from $since on and before $as_of, also under the device that a
-- guest is known by until a login.
with bought as (
    select person_id, user_pseudo_id, coalesce(items.item_category2, items.item_category) as category
    from known_events
    join items on known_events.item_id = items.item_id
    where event_name = 'purchase'
        and event_timestamp >= cast($since as timestamp)
        and coalesce(items.item_category2, items.item_category) is not null
        and coalesce(items.availability, 'in_stock') <> 'hidden'
),
named as (
    select person_id, category from bought
    union all
    select user_pseudo_id as person_id, category from bought where user_pseudo_id is not null
)
select distinct person_id, category
from named
