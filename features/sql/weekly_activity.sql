-- What each person, as known before $as_of, did in each week. Weeks are seven days, numbered backwards from the one that
-- ends where $until begins, which is 0; a week that began before the log did is left out.
with dated as (
    select
        *,
        unix_date(cast(cast($until as timestamp) as date)) - 1 - unix_date(day) as age_days,
        unix_date(cast(cast($until as timestamp) as date)) - unix_date(min(day) over ()) as known_days
    from daily_activity
)
select
    cast(floor(age_days / 7) as bigint) as weeks_ago,
    person_id,
    cast(sum(page_views) as bigint) as page_views,
    cast(sum(item_views) as bigint) as item_views,
    cast(sum(sessions) as bigint) as sessions,
    cast(sum(buying_sessions) as bigint) as buying_sessions,
    cast(sum(orders) as bigint) as orders,
    sum(revenue) as revenue,
    sum(refunds) as refunds
from dated
where age_days >= 0 and floor(age_days / 7) < floor(known_days / 7)
group by floor(age_days / 7), person_id
