-- What happened to each item in the four whole weeks before a week, and in the last of them, from events known before
-- $as_of; a week belongs to an event by when it became known. Weeks are numbered from Monday 1969-12-29. Sums of prices
-- are rounded before they are divided, for an engine sums in another order each time and a mean may lie between two.
-- Beside it the stock that was left, by the last row dated before the week: one dated within it may come after its events.
with weekly as (
    select
        item_id,
        cast(floor((unix_date(cast(known_at as date)) + 3) / 7) as bigint) as week,
        sum(case when event_name = 'view_item' then 1 else 0 end) as n_views,
        sum(case when event_name = 'add_to_cart' then 1 else 0 end) as n_carts,
        sum(case when event_name = 'purchase' then 1 else 0 end) as n_purchases,
        sum(price) as sum_of_prices,
        count(price) as n_prices
    from dated_events
    where item_id is not null
    group by 1, 2
),
ahead as (
    select explode(sequence(1, 4)) as n_weeks
),
four_weeks as (
    select
        item_id,
        cast(week + n_weeks as bigint) as week,
        cast(sum(n_views) as bigint) as n_views_4w,
        cast(sum(n_carts) as bigint) as n_carts_4w,
        cast(sum(n_purchases) as bigint) as n_purchases_4w,
        cast(sum(case when n_weeks = 1 then n_purchases else 0 end) as bigint) as n_purchases_1w,
        round(sum(sum_of_prices), 6) / nullif(cast(sum(n_prices) as double), 0.0) as mean_price_4w
    from weekly
    cross join ahead
    group by item_id, week + n_weeks
),
noted as (
    select
        item_id,
        location_id,
        cast(floor((unix_date(date) + 3) / 7) as bigint) + 1 as since_week,
        max_by(on_hand, date) as on_hand
    from stock
    where date < cast(cast($as_of as timestamp) as date) and on_hand is not null
    group by 1, 2, 3
),
in_force as (
    select *, lead(since_week) over (partition by item_id, location_id order by since_week) as until_week
    from noted
),
stocked as (
    select four_weeks.item_id, four_weeks.week, sum(in_force.on_hand) as on_hand
    from four_weeks
    join in_force
        on four_weeks.item_id = in_force.item_id
        and four_weeks.week >= in_force.since_week
        and four_weeks.week < coalesce(in_force.until_week, four_weeks.week + 1)
    group by four_weeks.item_id, four_weeks.week
)
select four_weeks.*, stocked.on_hand
from four_weeks
left join stocked on four_weeks.item_id = stocked.item_id and four_weeks.week = stocked.week
