-- The customer whom each device was last seen to be before $as_of.
select visitor_id as device_id, max_by(person_id, (known_at, event_id)) as person_id
from visit_events
where person_id <> visitor_id
group by visitor_id
