-- The events that were known before $as_of, each with whose device it is of, since when it was known, and whether it is of
-- a visit: one that came more than 30 minutes late was not seen while its visit ran, and a refund is nothing that a
-- visitor does.
select
    *,
    coalesce(user_pseudo_id, user_id) as visitor_id,
    greatest(event_timestamp, coalesce(received_at, event_timestamp)) as known_at,
    coalesce(received_at, event_timestamp) <= event_timestamp + interval 30 minutes and event_name <> 'refund'
        as is_of_a_visit
from events
where greatest(event_timestamp, coalesce(received_at, event_timestamp)) < cast($as_of as timestamp)
