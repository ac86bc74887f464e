-- The orders placed before $as_of: when, by whom and in which visit their first line was bought, and their worth.
select
    transaction_id,
    min(event_timestamp) as ordered_at,
    min_by(person_id, (event_timestamp, event_id)) as person_id,
    min_by(session_id, (event_timestamp, event_id)) as session_id,
    sum(quantity * coalesce(price, 0.0)) as revenue
from session_events
where event_name = 'purchase'
group by transaction_id
