-- What visitors did before $as_of, each event with its visit: the source's session_id, else a new one after a pause of
-- more than 30 minutes. Refunds are left out: the shop books them, nobody visits for them.
with gaps as (
    select
        *,
        cast(
            row_number() over (partition by person_id, session_id order by event_timestamp, event_id) as bigint
        ) as position,
        lag(event_timestamp) over (
            partition by person_id, session_id order by event_timestamp, event_id
        ) as previous_timestamp
    from known_events
    where event_name <> 'refund'
),
numbered as (
    select
        *,
        sum(
            case
                when previous_timestamp is null or event_timestamp > previous_timestamp + interval 30 minutes then 1
                else 0
            end
        ) over (
            partition by person_id, session_id
            order by position
            rows between unbounded preceding and current row
        ) as pause_number
    from gaps
)
select
    person_id,
    coalesce(session_id, concat(person_id, '#', cast(cast(pause_number as bigint) as string))) as session_id,
    position,
    event_id,
    event_name,
    event_timestamp,
    item_id,
    transaction_id,
    quantity,
    price,
    source,
    medium,
    device_category
from numbered
