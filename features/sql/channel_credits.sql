-- Orders before $as_of and their revenue by the channel that brought them. An order's touches are the buyer's visits that
-- were under way in the 30 days before it, its own among them; direct visits count only where there is no other. The
-- last touch has all of the credit, or each has a share that halves with every 7 days between its start and the order.
with touches as (
    select
        order_totals.transaction_id,
        order_totals.revenue,
        sessions.channel,
        sessions.started_at,
        sessions.session_id,
        unix_date(cast(ordered_at as date)) - unix_date(cast(started_at as date))
            + (
                3600 * (hour(ordered_at) - hour(started_at))
                + 60 * (minute(ordered_at) - minute(started_at))
                + (second(ordered_at) - second(started_at))
            ) / cast(86400 as double) as age_days,
        max(case when sessions.channel = 'direct' then 0 else 1 end) over (
            partition by order_totals.transaction_id
        ) as has_other
    from order_totals
    join sessions
        on order_totals.person_id = sessions.person_id
        and sessions.started_at <= order_totals.ordered_at
        and sessions.ended_at >= order_totals.ordered_at - interval 30 days
),
ranked as (
    select
        *,
        power(cast(0.5 as double), age_days / 7) as weight,
        row_number() over (partition by transaction_id order by started_at desc, session_id desc) as from_last
    from touches
    where channel <> 'direct' or has_other = 0
),
shared as (
    select
        channel,
        revenue,
        case when from_last = 1 then cast(1 as double) else cast(0 as double) end as last_share,
        weight / sum(weight) over (partition by transaction_id) as decayed_share
    from ranked
)
select
    channel,
    sum(last_share) as orders_last_non_direct,
    sum(last_share * revenue) as revenue_last_non_direct,
    sum(decayed_share) as orders_time_decay,
    sum(decayed_share * revenue) as revenue_time_decay
from shared
group by channel
