-- What is known of every person from all visits before $as_of.
with placed as (
    select
        *,
        row_number() over (
            partition by visitor_id, session_id, n_pauses, person_id order by known_at, event_id
        ) as n_events_of_visit,
        row_number() over (
            partition by visitor_id, session_id, n_pauses, person_id, event_name order by known_at, event_id
        ) as n_events_of_name,
        lag(transaction_id) over (
            partition by person_id, event_name order by known_at, event_id
        ) as previous_transaction_id
    from visit_events
)
select
    person_id,
    cast(sum(case when n_events_of_visit = 1 then 1 else 0 end) as bigint) as n_visits,
    cast(sum(case when event_name = 'view_item' then 1 else 0 end) as bigint) as n_views,
    cast(
        sum(case when event_name = 'add_to_cart' and n_events_of_name = 1 then 1 else 0 end) as bigint
    ) as n_carted_visits,
    cast(
        sum(
            case
                when event_name <> 'purchase' then 0
                when previous_transaction_id is null or previous_transaction_id <> transaction_id then 1
                else 0
            end
        ) as bigint
    ) as n_orders,
    sum(case when event_name = 'purchase' then quantity * coalesce(unit_price, 0.0) else 0.0 end) as spend,
    max(case when event_name = 'purchase' then known_us end) as ordered_us,
    max(known_us) as seen_us,
    max_by(transaction_id, (known_at, event_id)) filter (where event_name = 'purchase') as transaction_id
from placed
group by person_id
