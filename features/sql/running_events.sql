-- The events before $as_of of every visit that goes on at $since or begins later, and every earlier login by which their
-- devices changed hands: what visits that begin from then on are computed from, beside the totals of people until then.
-- Without a session_id a visit goes on at $since if its device was seen in the day before; of one that has run for more than
-- a day by then, a second cart after $since counts as its first.
with running as (
    select distinct visitor_id, session_id
    from dated_events
    where known_at >= cast($since as timestamp)
),
logins as (
    select
        event_id,
        user_id,
        lag(user_id) over (partition by visitor_id order by known_at, event_id) as previous_user_id
    from dated_events
    where user_id is not null and is_of_a_visit and known_at < cast($since as timestamp)
        and visitor_id in (select visitor_id from running)
),
wanted as (
    select event_id
    from dated_events
    left join running
        on dated_events.visitor_id = running.visitor_id and dated_events.session_id = running.session_id
    where running.visitor_id is not null
        or (dated_events.session_id is null and known_at >= cast($since as timestamp) - interval 1 day)
    union
    select event_id
    from logins
    where previous_user_id is null or previous_user_id <> user_id
)
select events.*
from events
join wanted on events.event_id = wanted.event_id
