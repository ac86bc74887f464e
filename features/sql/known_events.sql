-- The events known before $as_of, each with the person it belongs to: the customer, else the customer whom the device
-- was last seen to be, else the device.
with known as (
    select *
    from events
    where event_timestamp < cast($as_of as timestamp)
        and coalesce(received_at, event_timestamp) < cast($as_of as timestamp)
),
logins as (
    select user_pseudo_id as device_id, max_by(user_id, (event_timestamp, event_id)) as customer_id
    from known
    where user_id is not null and user_pseudo_id is not null
    group by user_pseudo_id
)
select
    coalesce(known.user_id, logins.customer_id, known.user_pseudo_id) as person_id,
    known.user_id,
    known.user_pseudo_id,
    greatest(known.event_timestamp, coalesce(known.received_at, known.event_timestamp)) as known_at,
    known.event_id,
    known.event_name,
    known.event_timestamp,
    known.session_id,
    known.item_id,
    known.transaction_id,
    coalesce(known.quantity, 1.0) as quantity,
    known.price,
    known.location_id,
    known.source,
    known.medium,
    known.campaign,
    known.device_category,
    known.index as place_shown
from known
left join logins on known.user_pseudo_id = logins.device_id
