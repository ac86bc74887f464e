-- Units and revenue per series and period before $as_of: from the demand table where it has rows, else purchases less
-- refunds. A series is an item at a location (at all of them together unless $by_location = 1) that sold in $least_periods
-- periods or more. Days and weeks are numbered from Monday 1969-12-29, months from January 1970; the first period counts
-- only when it is whole, and one without a sale has no row.
with sold as (
    select item_id, location_id, date as day, quantity, revenue
    from demand
    where date < cast(cast($as_of as timestamp) as date)
    union all
    select
        item_id,
        location_id,
        cast(event_timestamp as date) as day,
        case when event_name = 'purchase' then quantity else -quantity end as quantity,
        case when event_name = 'purchase' then quantity else -quantity end * coalesce(price, 0.0) as revenue
    from known_events
    where event_name in ('purchase', 'refund')
        and not exists (select 1 from demand)
),
whole as (
    select min(day) - interval 1 day as day_before
    from sold
),
first_whole as (
    select
        1 + cast(case $frequency
            when 'month' then 12 * (year(day_before) - 1970) + month(day_before) - 1
            when 'week' then floor((unix_date(cast(day_before as date)) + 3) / 7)
            else unix_date(cast(day_before as date)) + 3
        end as bigint) as first_period
    from whole
),
numbered as (
    select
        sold.item_id,
        case when $by_location = 1 then coalesce(sold.location_id, '') else '' end as location_id,
        coalesce(items.item_category2, items.item_category, '') as category,
        cast(case $frequency
            when 'month' then 12 * (year(sold.day) - 1970) + month(sold.day) - 1
            when 'week' then floor((unix_date(sold.day) + 3) / 7)
            else unix_date(sold.day) + 3
        end as bigint) as period,
        sold.quantity,
        coalesce(sold.revenue, 0.0) as revenue
    from sold
    left join items on sold.item_id = items.item_id
    where coalesce(items.availability, 'in_stock') <> 'hidden'
),
per_period as (
    select item_id, location_id, category, period, sum(quantity) as quantity, sum(revenue) as revenue
    from numbered
    cross join first_whole
    where period >= first_period
    group by item_id, location_id, category, period
    having sum(quantity) > 0
),
series as (
    select item_id, location_id, cast(row_number() over (order by item_id, location_id) - 1 as bigint) as series_idx
    from per_period
    group by item_id, location_id
    having count(*) >= $least_periods
)
select
    series.series_idx,
    series.item_id,
    series.location_id,
    per_period.category,
    per_period.period,
    per_period.quantity,
    per_period.revenue
from per_period
join series on per_period.item_id = series.item_id and per_period.location_id = series.location_id
order by series.series_idx, per_period.period
