-- What happened to each item in the four whole weeks before a week, and in the last of them, from events known before
-- $as_of; a week belongs to an event by when it became known. Weeks are numbered from Monday 1969-12-29. Sums of prices
-- are rounded before they are divided, for an engine sums in another order each time and a mean may lie between two.
with weekly as (
    select
        item_id,
        cast(floor((unix_date(cast(greatest(event_timestamp, coalesce(received_at, event_timestamp)) as date)) + 3) / 7)
            as bigint) as week,
        sum(case when event_name = 'view_item' then 1 else 0 end) as n_views,
        sum(case when event_name = 'add_to_cart' then 1 else 0 end) as n_carts,
        sum(case when event_name = 'purchase' then 1 else 0 end) as n_purchases,
        sum(price) as sum_of_prices,
        count(price) as n_prices
    from events
    where greatest(event_timestamp, coalesce(received_at, event_timestamp)) < cast($as_of as timestamp)
        and item_id is not null
    group by 1, 2
),
ahead as (
    select explode(sequence(1, 4)) as n_weeks
)
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
