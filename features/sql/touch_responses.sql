-- Every touch of a campaign before $as_of: what came before it, and when the customer first did $event within
-- $horizon_days of it, if so; the event 'response' is the touch's own responded_at. Earlier responses are those that were
-- known to be the customer's when the touch was sent.
with touched as (
    select
        user_id,
        campaign_id,
        sent_at,
        channel,
        treated,
        cost,
        case
            when $event = 'response' and responded_at < cast($as_of as timestamp)
                and unix_micros(responded_at) < unix_micros(sent_at) + $horizon_days * 86400000000 then responded_at
        end as stated_at
    from campaign_touches
    where sent_at < cast($as_of as timestamp)
),
answers as (
    select
        touched.user_id,
        touched.campaign_id,
        touched.sent_at,
        touched.channel,
        min(known_events.event_timestamp) as responded_at,
        min(case when known_events.user_id = touched.user_id then known_events.known_at end) as response_known_at
    from touched
    join known_events
        on touched.user_id = known_events.person_id
        and known_events.event_timestamp >= touched.sent_at
        and unix_micros(known_events.event_timestamp) < unix_micros(touched.sent_at) + $horizon_days * 86400000000
    where known_events.event_name = $event
    group by touched.user_id, touched.campaign_id, touched.sent_at, touched.channel
),
answered as (
    select
        touched.*,
        coalesce(stated_at, answers.responded_at) as responded_at,
        coalesce(stated_at, answers.response_known_at) as response_known_at
    from touched
    left join answers
        on touched.user_id = answers.user_id
        and touched.campaign_id = answers.campaign_id
        and touched.sent_at = answers.sent_at
        and coalesce(touched.channel, '') = coalesce(answers.channel, '')
)
select
    answered.user_id,
    answered.campaign_id,
    answered.sent_at,
    answered.channel,
    answered.treated,
    answered.cost,
    answered.responded_at,
    cast(count(earlier.user_id) as bigint) as n_earlier_touches,
    cast(sum(case when earlier.response_known_at < answered.sent_at then 1 else 0 end) as bigint) as n_earlier_responses,
    cast(min(unix_micros(answered.sent_at) - unix_micros(earlier.sent_at)) as double) / 86400000000.0
        as days_since_last_touch
from answered
left join answered earlier
    on answered.user_id = earlier.user_id
    and earlier.sent_at < answered.sent_at
group by
    answered.user_id,
    answered.campaign_id,
    answered.sent_at,
    answered.channel,
    answered.treated,
    answered.cost,
    answered.responded_at
