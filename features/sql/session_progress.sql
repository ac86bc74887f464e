-- Every visit that began from $since on as it was seen after each of its events before $as_of, and the purchases that were
-- still to come in it: those known within a day, so that they do not change once the day is over. One that became known
-- late counts by its session_id. people_before holds people.sql as of $since; of events that visits of before then are
-- made of, none needs to be there but those of running_events.sql.
with placed as (
    select
        visit_events.*,
        cast(case when item_id is not null then 1 else 0 end as bigint) as is_of_item,
        cast(case when event_name = 'purchase' then 1 else 0 end as bigint) as is_purchase,
        row_number() over visit as n_events,
        lag(known_us) over visit as previous_us,
        lag(known_us) over person as person_seen_us,
        coalesce(
            lag(visit_events.transaction_id) over (
                partition by visit_events.person_id, event_name, known_at >= cast($since as timestamp)
                order by known_at, event_id
            ),
            people_before.transaction_id
        ) as previous_transaction_id,
        row_number() over (
            partition by visitor_id, session_id, n_pauses, visit_events.person_id order by known_at, event_id
        ) as n_events_of_person,
        row_number() over (
            partition by visitor_id, session_id, n_pauses, visit_events.person_id, event_name
            order by known_at, event_id
        ) as n_events_of_name,
        row_number() over (
            partition by visitor_id, session_id, n_pauses, item_id order by known_at, event_id
        ) as n_events_of_item,
        row_number() over (
            partition by visitor_id, session_id, n_pauses, item_category order by known_at, event_id
        ) as n_events_of_category
    from visit_events
    left join people_before on visit_events.person_id = people_before.person_id
    window
        visit as (partition by visitor_id, session_id, n_pauses order by known_at, event_id),
        person as (
            partition by visit_events.person_id, known_at >= cast($since as timestamp) order by known_at, event_id
        )
),
so_far as (
    select
        *,
        min(known_us) over whole_visit as started_us,
        sum(is_purchase) over (
            partition by visitor_id, session_id, n_pauses order by known_us
            range between unbounded preceding and 86400000000 following
        ) as n_purchases_within_a_day,
        sum(is_purchase) over visit as n_purchases,
        sum(case when event_name = 'page_view' then 1 else 0 end) over visit as n_page_views,
        sum(case when event_name = 'search' then 1 else 0 end) over visit as n_searches,
        sum(case when event_name = 'view_item' then 1 else 0 end) over visit as n_views,
        sum(case when event_name = 'add_to_cart' then 1 else 0 end) over visit as n_carts,
        sum(case when event_name = 'remove_from_cart' then 1 else 0 end) over visit as n_removals,
        sum(case when event_name in ('view_cart', 'begin_checkout', 'add_payment_info') then 1 else 0 end) over visit
            as n_checkout_steps,
        sum(is_of_item) over visit as n_item_events,
        sum(case when item_id is not null and n_events_of_item = 1 then 1 else 0 end) over visit as n_items,
        sum(case when item_category is not null and n_events_of_category = 1 then 1 else 0 end) over visit
            as n_categories,
        max(known_us - previous_us) over visit as longest_pause_us,
        max(case when event_name = 'add_to_cart' then known_us end) over visit as carted_us,
        sum(is_of_item * unit_price) over visit as sum_of_prices,
        sum(case when unit_price is not null then is_of_item else 0 end) over visit as n_prices,
        max(case when is_of_item = 1 then unit_price end) over visit as highest_price,
        sum(
            case event_name when 'add_to_cart' then 1.0 when 'remove_from_cart' then -1.0 else 0.0 end
            * quantity * coalesce(unit_price, 0.0)
        ) over visit as cart_value,
        min_by(source, case when source is not null then n_events end) over visit as visit_source,
        min_by(medium, case when medium is not null then n_events end) over visit as visit_medium,
        min_by(campaign, case when campaign is not null then n_events end) over visit as visit_campaign,
        min_by(device_category, case when device_category is not null then n_events end) over visit as visit_device,
        sum(case when n_events_of_person = 1 then 1 else 0 end) over person as n_visits_before,
        sum(case when event_name = 'view_item' then 1 else 0 end) over person as n_views_before,
        sum(case when event_name = 'add_to_cart' and n_events_of_name = 1 then 1 else 0 end) over person
            as n_carted_visits_before,
        sum(
            case when is_purchase = 1 and (previous_transaction_id is null or previous_transaction_id <> transaction_id)
                then 1 else 0 end
        ) over person as n_orders_before,
        sum(is_purchase * quantity * coalesce(unit_price, 0.0)) over person as spend_before,
        max(case when is_purchase = 1 then known_us end) over person as ordered_us
    from placed
    window
        visit as (
            partition by visitor_id, session_id, n_pauses order by known_at, event_id
            rows between unbounded preceding and current row
        ),
        whole_visit as (partition by visitor_id, session_id, n_pauses),
        person as (
            partition by person_id, known_at >= cast($since as timestamp) order by known_at, event_id
            rows between unbounded preceding and 1 preceding
        )
),
seen as (
    select
        so_far.*,
        max(item_id) over latest_item as last_item_id,
        max(item_category) over latest_item as last_category,
        max(case when is_of_item = 1 then unit_price end) over latest_item as last_price,
        max(case when is_of_item = 1 then n_events_of_item end) over latest_item as n_events_of_last_item,
        coalesce(people_before.n_visits, 0) + coalesce(first_value(n_visits_before) over visit_of_person, 0)
            as n_earlier_visits,
        coalesce(people_before.n_views, 0) + coalesce(first_value(n_views_before) over visit_of_person, 0)
            as n_earlier_views,
        coalesce(people_before.n_carted_visits, 0)
            + coalesce(first_value(n_carted_visits_before) over visit_of_person, 0) as n_earlier_carted_visits,
        coalesce(people_before.n_orders, 0) + coalesce(first_value(n_orders_before) over visit_of_person, 0)
            as n_earlier_orders,
        coalesce(people_before.spend, 0.0) + coalesce(first_value(spend_before) over visit_of_person, 0.0)
            as earlier_spend,
        coalesce(first_value(so_far.ordered_us) over visit_of_person, people_before.ordered_us) as last_ordered_us,
        coalesce(first_value(person_seen_us) over visit_of_person, people_before.seen_us) as last_seen_us
    from so_far
    left join people_before on so_far.person_id = people_before.person_id
    window
        latest_item as (partition by visitor_id, session_id, n_pauses, n_item_events),
        visit_of_person as (
            partition by visitor_id, session_id, n_pauses, so_far.person_id order by known_at, event_id
        )
),
late as (
    select
        visitor_id,
        session_id,
        unix_micros(min(event_timestamp)) as bought_us,
        unix_micros(min(known_at)) as told_us
    from dated_events
    where event_name = 'purchase' and not is_of_a_visit and session_id is not null
    group by visitor_id, session_id
)
select
    seen.visitor_id,
    seen.session_id,
    event_id,
    person_id,
    last_item_id as item_id,
    known_at,
    started_us,
    cast(seen.n_purchases as bigint) as n_purchases,
    cast(
        n_purchases_within_a_day - seen.n_purchases
        + case when late.bought_us > seen.known_us and late.told_us <= seen.known_us + 86400000000 then 1 else 0 end
        as bigint
    ) as n_purchases_to_come,
    event_name,
    visit_source as source,
    visit_medium as medium,
    visit_campaign as campaign,
    visit_device as device_category,
    last_category as item_category,
    cast(n_events as bigint) as n_events,
    cast(n_page_views as bigint) as n_page_views,
    cast(n_searches as bigint) as n_searches,
    cast(n_views as bigint) as n_views,
    cast(n_carts as bigint) as n_carts,
    cast(n_removals as bigint) as n_removals,
    cast(n_checkout_steps as bigint) as n_checkout_steps,
    cast(n_items as bigint) as n_items,
    cast(n_categories as bigint) as n_categories,
    cast(n_events_of_last_item as bigint) as n_events_of_last_item,
    cast(known_us - started_us as double) / 1000000.0 as seconds_since_start,
    cast(known_us - previous_us as double) / 1000000.0 as seconds_since_previous,
    cast(longest_pause_us as double) / 1000000.0 as longest_pause_seconds,
    cast(known_us - carted_us as double) / 1000000.0 as seconds_since_cart,
    last_price,
    sum_of_prices / nullif(cast(n_prices as double), 0.0) as mean_price,
    highest_price,
    cart_value,
    item_weeks.n_views_4w as item_views_4w,
    item_weeks.n_carts_4w as item_carts_4w,
    item_weeks.n_purchases_4w as item_purchases_4w,
    item_weeks.n_purchases_1w as item_purchases_1w,
    last_price / nullif(item_weeks.mean_price_4w, 0.0) as price_over_past_price,
    item_weeks.on_hand as item_on_hand,
    cast(extract(hour from known_at) as bigint) as hour_of_day,
    cast(mod(unix_date(cast(known_at as date)) + 4, 7) + 1 as bigint) as day_of_week,
    cast(case when person_id <> seen.visitor_id or user_id is not null then 1 else 0 end as bigint) as is_known_customer,
    cast(n_earlier_visits as bigint) as n_earlier_visits,
    cast(n_earlier_views as bigint) as n_earlier_views,
    cast(n_earlier_carted_visits as bigint) as n_earlier_carted_visits,
    cast(n_earlier_orders as bigint) as n_earlier_orders,
    cast(n_earlier_views + 15 as double) / cast(n_earlier_visits + 5 as double) as earlier_views_per_visit,
    cast(n_earlier_carted_visits + 1 as double) / cast(n_earlier_visits + 5 as double) as share_of_carted_visits,
    cast(n_earlier_orders + 1 as double) / cast(n_earlier_visits + 5 as double) as earlier_orders_per_visit,
    earlier_spend,
    cast(started_us - last_ordered_us as double) / 86400000000.0 as days_since_last_order,
    cast(started_us - last_seen_us as double) / 86400000000.0 as days_since_last_visit
from seen
left join late on seen.visitor_id = late.visitor_id and seen.session_id = late.session_id
left join item_weeks
    on seen.last_item_id = item_weeks.item_id
    and cast(floor((unix_date(cast(known_at as date)) + 3) / 7) as bigint) = item_weeks.week
where started_us >= unix_micros(cast($since as timestamp))
