-- One row per person and category of which the person bought in the 364 days before $as_of: how lately, how often, how
-- regularly, and how the category sells. A category is the second level where there is one, else the first.
with lines as (
    select
        person_id,
        coalesce(items.item_category2, items.item_category) as category,
        unix_date(cast(cast($as_of as timestamp) as date)) - unix_date(cast(event_timestamp as date)) as age_days,
        quantity,
        quantity * coalesce(known_events.price, 0.0) as spend
    from known_events
    join items on known_events.item_id = items.item_id
    where event_name = 'purchase'
        and coalesce(items.item_category2, items.item_category) is not null
        and coalesce(items.availability, 'in_stock') <> 'hidden'
        and event_timestamp >= cast($as_of as timestamp) - interval 364 days
),
days as (
    select person_id, category, age_days, sum(quantity) as units, sum(spend) as spend
    from lines
    group by person_id, category, age_days
),
paced as (
    select
        *,
        lag(age_days) over (partition by person_id, category order by age_days desc) - age_days as gap_days,
        min(age_days) over (partition by person_id, category) as youngest_days
    from days
),
categories as (
    select
        category,
        sum(case when age_days <= 28 then 1 else 0 end) as n_days_28d,
        sum(case when age_days > 28 and age_days <= 56 then 1 else 0 end) as n_days_28d_before,
        avg(cast(gap_days as double)) as mean_gap_days
    from paced
    group by category
),
of_person as (
    select
        person_id,
        min(age_days) as days_since_last_order,
        count(distinct case when age_days <= 91 then age_days end) as n_order_days_91d
    from lines
    group by person_id
)
select
    paced.person_id,
    paced.category,
    cast(min(paced.age_days) as bigint) as days_since_last_category_order,
    cast(count(*) as bigint) as n_category_days,
    cast(sum(case when paced.age_days <= 28 then 1 else 0 end) as bigint) as n_category_days_28d,
    cast(sum(case when paced.age_days <= 91 then 1 else 0 end) as bigint) as n_category_days_91d,
    cast(sum(case when paced.age_days <= 182 then 1 else 0 end) as bigint) as n_category_days_182d,
    sum(case when paced.age_days = youngest_days then paced.units else 0.0 end) as last_category_units,
    sum(paced.units) / count(*) as mean_category_units,
    sum(paced.spend) / count(*) as mean_category_spend,
    avg(cast(gap_days as double)) as mean_category_gap_days,
    cast(max(gap_days) as bigint) as longest_category_gap_days,
    cast(min(case when paced.age_days - youngest_days = 0 then gap_days end) as bigint) as last_category_gap_days,
    cast(min(paced.age_days) as double) / nullif(avg(cast(gap_days as double)), 0.0) as share_of_category_gap,
    cast(max(paced.age_days) as bigint) as days_since_first_category_order,
    cast(max(of_person.days_since_last_order) as bigint) as days_since_last_order,
    cast(max(of_person.n_order_days_91d) as bigint) as n_order_days_91d,
    cast(max(categories.n_days_28d) as bigint) as category_sales_28d,
    cast(max(categories.n_days_28d) as double) / nullif(cast(max(categories.n_days_28d_before) as double), 0.0)
        as category_trend,
    max(categories.mean_gap_days) as category_gap_days
from paced
join categories on paced.category = categories.category
join of_person on paced.person_id = of_person.person_id
group by paced.person_id, paced.category
