-- The events before $as_of of every visit that goes on at $since or begins later, and every earlier login by which their
-- devices changed hands: what visits that begin from then on are computed from, beside the totals of people until then.
-- Without a session_id a visit goes on at $since if its device was seen in the day before.
with told as (
    select
        coalesce(user_pseudo_id, user_id) as visitor_id,
        session_id,
        event_id,
        user_id,
        greatest(event_timestamp, coalesce(received_at, event_timestamp)) as known_at,
        coalesce(received_at, event_timestamp) <= event_timestamp + interval 30 minutes and event_name <> 'refund'
            as is_of_a_visit
    from events
    where greatest(event_timestamp, coalesce(received_at, event_timestamp)) < cast($as_of as timestamp)
),
running as (
    select distinct visitor_id, session_id
    from told
    where known_at >= cast($since as timestamp)
),
logins as (
    select
        event_id,
        user_id,
        lag(user_id) over (partition by visitor_id order by known_at, event_id) as previous_user_id
    from told
    where user_id is not null and is_of_a_visit and known_at < cast($since as timestamp)
        and visitor_id in (select visitor_id from running)
),
wanted as (
    select told.event_id
    from told
    left join running on told.visitor_id = running.visitor_id and told.session_id = running.session_id
    where running.visitor_id is not null
        or (told.session_id is null and told.known_at >= cast($since as timestamp) - interval 1 day)
    union
    select event_id
    from logins
    where previous_user_id is null or previous_user_id <> user_id
)
select events.*
from events
join wanted on events.event_id = wanted.event_id
