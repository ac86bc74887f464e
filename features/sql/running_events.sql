-- The events before $as_of of every visit that goes on at $since or begins later, and of each device the last login
-- before $since: what visits that begin from then on are computed from, beside the totals of people until then. Without a
-- session_id a visit goes on at $since if its device was seen in the day before.
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
    select max_by(event_id, (known_at, event_id)) as event_id
    from told
    where user_id is not null and is_of_a_visit and known_at < cast($since as timestamp)
        and visitor_id in (select visitor_id from running)
    group by visitor_id
)
select events.*
from events
left join running
    on coalesce(events.user_pseudo_id, events.user_id) = running.visitor_id and events.session_id = running.session_id
left join logins on events.event_id = logins.event_id
where greatest(event_timestamp, coalesce(received_at, event_timestamp)) < cast($as_of as timestamp)
    and (
        running.visitor_id is not null
        or logins.event_id is not null
        or (
            events.session_id is null
            and greatest(event_timestamp, coalesce(received_at, event_timestamp))
                >= cast($since as timestamp) - interval 1 day
        )
    )
