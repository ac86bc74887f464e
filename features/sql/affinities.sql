-- How much each person cared for each item from $since on and before $as_of, hidden items left out: events weighted by kind and halved
-- every $half_life_days; and how often the item was bought.
select
    known_events.person_id,
    known_events.item_id,
    sum(
        case
            when event_name = 'purchase' then $purchase_weight
            when event_name = 'add_to_cart' then $cart_weight
            else $view_weight
        end
        * power(
            0.5,
            (unix_date(cast(cast($as_of as timestamp) as date)) - unix_date(cast(event_timestamp as date)))
                / $half_life_days
        )
    ) as affinity,
    cast(sum(case when event_name = 'purchase' then 1 else 0 end) as bigint) as n_purchases
from known_events
left join items on known_events.item_id = items.item_id
where event_timestamp >= cast($since as timestamp)
    and event_name in ('view_item', 'add_to_cart', 'purchase')
    and coalesce(items.availability, 'in_stock') <> 'hidden'
group by known_events.person_id, known_events.item_id
