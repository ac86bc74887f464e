-- The events that visits are made of, before $as_of, in the order in which they became known. A visit is the source's
-- session_id of a device or, without one, ends with a pause of more than 30 minutes (n_pauses counts them). Who a device
-- belongs to is what was known at each event.
with timely as (
    select
        visitor_id,
        session_id,
        event_id,
        event_name,
        known_at,
        user_id,
        dated_events.item_id,
        items.item_category,
        transaction_id,
        coalesce(quantity, 1.0) as quantity,
        coalesce(dated_events.price, items.price) as unit_price,
        source,
        medium,
        campaign,
        device_category
    from dated_events
    left join items on dated_events.item_id = items.item_id
    where is_of_a_visit
),
told as (
    select
        *,
        count(user_id) over (
            partition by visitor_id order by known_at, event_id rows between unbounded preceding and current row
        ) as n_logins,
        lag(known_at) over (partition by visitor_id, session_id order by known_at, event_id) as previous_at
    from timely
)
select
    visitor_id,
    session_id,
    cast(
        sum(
            case when session_id is null and known_at > previous_at + interval 30 minutes then 1 else 0 end
        ) over (
            partition by visitor_id, session_id order by known_at, event_id
            rows between unbounded preceding and current row
        ) as bigint
    ) as n_pauses,
    event_id,
    event_name,
    known_at,
    unix_micros(known_at) as known_us,
    coalesce(max(user_id) over (partition by visitor_id, n_logins), visitor_id) as person_id,
    user_id,
    item_id,
    item_category,
    transaction_id,
    quantity,
    unit_price,
    source,
    medium,
    campaign,
    device_category
from told
