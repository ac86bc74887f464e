-- Everyone who bought from $since on and before $as_of.
select distinct person_id
from known_events
where event_name = 'purchase'
    and event_timestamp >= cast($since as timestamp)
