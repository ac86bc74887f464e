-- Everyone who did $event from $since on and before $as_of, also under the device that a guest is known by until a login.
with done as (
    select person_id, user_pseudo_id
    from known_events
    where event_name = $event
        and event_timestamp >= cast($since as timestamp)
),
named as (
    select person_id from done
    union all
    select user_pseudo_id as person_id from done where user_pseudo_id is not null
)
select distinct person_id
from named
