-- What each person did on each day before $as_of and in each channel. A visit belongs to the day on which it began, an
-- order to its own day, a refund to its own day and to the channel of the order that it undoes.
with ordered as (
    select order_totals.*, sessions.channel
    from order_totals
    join sessions on order_totals.person_id = sessions.person_id and order_totals.session_id = sessions.session_id
),
happened as (
    select
        cast(started_at as date) as day,
        channel,
        person_id,
        n_page_views as page_views,
        n_views as item_views,
        1 as sessions,
        case when n_purchases > 0 then 1 else 0 end as buying_sessions,
        0 as orders,
        cast(0 as double) as revenue,
        cast(0 as double) as refunds
    from sessions
    union all
    select cast(ordered_at as date), channel, person_id, 0, 0, 0, 0, 1, revenue, cast(0 as double)
    from ordered
    union all
    select
        cast(undone.event_timestamp as date),
        coalesce(ordered.channel, 'unknown'),
        undone.person_id,
        0,
        0,
        0,
        0,
        0,
        cast(0 as double),
        undone.quantity * coalesce(undone.price, 0.0)
    from known_events undone
    left join ordered on undone.transaction_id = ordered.transaction_id
    where undone.event_name = 'refund'
)
select
    day,
    channel,
    person_id,
    cast(sum(page_views) as bigint) as page_views,
    cast(sum(item_views) as bigint) as item_views,
    cast(sum(sessions) as bigint) as sessions,
    cast(sum(buying_sessions) as bigint) as buying_sessions,
    cast(sum(orders) as bigint) as orders,
    sum(revenue) as revenue,
    sum(refunds) as refunds
from happened
group by day, channel, person_id
