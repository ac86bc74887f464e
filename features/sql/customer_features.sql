-- One row per person who bought in the last 364 days before $as_of: recency, frequency, money, cadence and browsing.
-- Nothing counts a whole history: totals grow with the age of the shop's data and mislead a model fitted earlier.
-- A refund need not name the order that it undoes, so the units of a year's refunds are divided by those of its purchases.
-- What is usual is the mean price that was paid, for the catalogue holds the price of today; a line is at a discount only
-- from 1 % below it on, lest the rounding of a price that never changed makes one. An item sold once has no usual price.
with orders as (
    select
        person_id,
        transaction_id,
        unix_date(cast(cast($as_of as timestamp) as date)) - unix_date(cast(max(event_timestamp) as date)) as age_days,
        sum(quantity * coalesce(price, 0.0)) as spend,
        count(*) as n_lines
    from known_events
    where event_name = 'purchase'
    group by person_id, transaction_id
),
order_days as (
    select person_id, age_days, count(*) as n_orders, sum(spend) as spend, sum(n_lines) as n_lines
    from orders
    group by person_id, age_days
),
paced as (
    select
        *,
        lag(age_days) over (partition by person_id order by age_days desc) - age_days as gap_days,
        min(age_days) over (partition by person_id) as youngest_days
    from order_days
    where age_days <= 364
),
bought as (
    select
        person_id,
        cast(min(age_days) as bigint) as days_since_last_order,
        cast(sum(case when age_days <= 28 then n_orders else 0 end) as bigint) as n_orders_28d,
        cast(sum(case when age_days <= 91 then n_orders else 0 end) as bigint) as n_orders_91d,
        cast(sum(case when age_days <= 182 then 1 else 0 end) as bigint) as n_order_days_182d,
        cast(count(distinct case when age_days <= 91 then floor((age_days - 1) / 7) end) as bigint) as n_order_weeks_91d,
        sum(case when age_days <= 28 then spend else 0.0 end) as spend_28d,
        sum(case when age_days <= 91 then spend else 0.0 end) as spend_91d,
        cast(sum(case when age_days <= 28 then n_lines else 0 end) as bigint) as n_lines_28d,
        sum(case when age_days = youngest_days then spend else 0.0 end) as last_order_day_spend,
        sum(spend) / sum(n_orders) as mean_order_spend,
        avg(cast(gap_days as double)) as mean_days_between_orders,
        cast(max(gap_days) as bigint) as longest_days_between_orders,
        avg(cast(case when gap_days > youngest_days then 1 when gap_days is not null then 0 end as double))
            as share_of_longer_gaps
    from paced
    group by person_id
),
traded as (
    select person_id, event_name, item_id, quantity, price
    from known_events
    where event_name in ('purchase', 'refund')
        and unix_date(cast(cast($as_of as timestamp) as date)) - unix_date(cast(event_timestamp as date)) <= 364
),
usual_prices as (
    select item_id, round(sum(price), 6) / cast(count(price) as double) as usual_price
    from traded
    where event_name = 'purchase'
    group by item_id
    having count(price) > 1
),
shares as (
    select
        person_id,
        least(
            sum(case when event_name = 'refund' then quantity else 0.0 end),
            sum(case when event_name = 'purchase' then quantity else 0.0 end)
        ) / nullif(sum(case when event_name = 'purchase' then quantity else 0.0 end), 0.0) as share_of_units_returned,
        avg(case when event_name = 'purchase' then cast(price < 0.99 * usual_price as double) end)
            as share_of_lines_at_discount
    from traded
    left join usual_prices on traded.item_id = usual_prices.item_id
    group by person_id
),
visited as (
    select
        person_id,
        min(unix_date(cast(cast($as_of as timestamp) as date)) - unix_date(cast(event_timestamp as date))) as age_days,
        sum(case when event_name = 'view_item' then 1 else 0 end) as n_views,
        sum(case when event_name = 'add_to_cart' then 1 else 0 end) as n_carts
    from known_events
    where event_timestamp >= cast($as_of as timestamp) - interval 28 days
    group by person_id
)
select
    bought.*,
    shares.share_of_units_returned,
    shares.share_of_lines_at_discount,
    cast(visited.age_days as bigint) as days_since_last_visit,
    cast(coalesce(visited.n_views, 0) as bigint) as n_views_28d,
    cast(coalesce(visited.n_carts, 0) as bigint) as n_carts_28d
from bought
left join shares on bought.person_id = shares.person_id
left join visited on bought.person_id = visited.person_id
