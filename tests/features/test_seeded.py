"""The seeded shop keeps the contract, and what it writes agrees with the truth that it writes beside it."""

import sys
import tomllib

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from features import contract
from features.errors import UserError
from features.home import ROOT
from features.seeded import tables
from features.seeded.__main__ import main
from features.seeded.campaigns import Campaigns
from features.seeded.catalogue import CATEGORIES
from features.seeded.shop import Shop
from features.seeded.stockroom import Stockroom
from features.seeded.tables import Files, write
from features.seeded.trade import LATE_SHARE

N_EVENTS = 40_000
VARIANCE_OVER_MEAN = 3  # of sales: several units in a line, several lines in an order
SHOPS = ROOT / "configs" / "shops"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("seeded")


@pytest.fixture(scope="module")
def truth(folder):
    return write(folder, N_EVENTS)


@pytest.fixture(scope="module")
def ask(folder, truth):
    """Answers a SELECT over the tables written, row by row."""
    connection = duckdb.connect(config={"threads": 1})
    for path in folder.rglob("*.parquet"):
        name = f"true_{path.stem}" if path.parent.name == "truth" else path.stem
        connection.execute(f"create view {name} as select * from read_parquet('{path}')")
    return lambda text: connection.execute(text).fetchall()


def table_names():
    return ("events", "items", "users", "stock", "offers", "supply", "pipeline")


def predicates(table, written):
    """Every predicate of the contract that the columns written allow to ask."""
    for column in table.columns:
        if column.required:
            yield f"{column.name} is not null"
        if column.check and column.name in written:
            yield f'"{column.name}" is null or ({column.check})'
    yield from (predicate for predicate, _ in table.checks)


@pytest.mark.parametrize("name", table_names())
def test_every_row_passes_the_checks_of_the_contract(folder, ask, name):
    table = contract.TABLES[name]
    described = {column: kind for column, kind, *_ in ask(f"describe {name}")}
    assert {c: described[c] for c in table.types() if c in described} == {
        c: kind for c, kind in table.types().items() if c in described
    }
    assert ask(f"select count(*) from {name}")[0][0] > 0
    for predicate in predicates(table, described):
        assert ask(f"select count(*) from {name} where ({predicate}) is not true") == [(0,)], predicate


@pytest.mark.parametrize("name", table_names())
def test_keys_are_unique(ask, name):
    written = {column for column, *_ in ask(f"describe {name}")}
    key = ", ".join(column for column in contract.TABLES[name].key if column in written)
    assert ask(f"select {key} from {name} group by all having count(*) > 1") == []


@pytest.mark.parametrize("n_events", [1_000, 5_000, N_EVENTS])
def test_the_number_of_events_is_met_within_two_percent(tmp_path, n_events):
    truth = write(tmp_path, n_events)
    written = pq.read_metadata(tmp_path / "events" / "events.parquet").num_rows
    assert truth.n_events == written == pytest.approx(n_events, rel=0.02)


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    for name, seed in (("one", 7), ("same", 7), ("other", 8)):
        write(tmp_path / name, 1_000, seed)
    paths = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.parquet"))
    assert len(paths) == 11
    for path in paths:
        one, same, other = (pq.read_table(tmp_path / name / path) for name in ("one", "same", "other"))
        assert one.equals(same), path
        assert not one.equals(other), path


def test_a_row_group_holds_one_chunk_and_a_day_at_most_in_order_of_time(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 500)
    waiting = []
    append = Files.append

    def watched(files, name, table):
        append(files, name, table)
        waiting.append(sum(map(len, files.waiting[name])))

    monkeypatch.setattr(Files, "append", watched)
    write(tmp_path, 10_000)
    assert max(waiting) < 500
    events = pq.ParquetFile(tmp_path / "events" / "events.parquet")
    busiest_day = max(np.unique(events.read()["event_timestamp"].to_numpy().astype("M8[D]"), return_counts=True)[1])
    groups = [events.metadata.row_group(number) for number in range(events.num_row_groups)]
    assert max(group.num_rows for group in groups) < 500 + busiest_day < 2_000
    times = events.read()["event_timestamp"].to_numpy()
    assert (np.diff(times) >= np.timedelta64(0)).all()


def test_purchases_are_calibrated_against_the_true_probability(ask):
    rows = ask("select purchase_probability, purchased from true_sessions")
    probability, purchased = np.array(rows, float).T
    assert 0.05 < purchased.mean() < 0.4
    for low, high in ((0, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, 1), (0, 1)):
        inside = (probability > low) & (probability <= high)
        error = np.sqrt((probability * (1 - probability))[inside].sum())
        assert abs((purchased - probability)[inside].sum()) < 3.5 * error
    assert (probability == 0).mean() > 0.01
    assert not purchased[probability == 0].any()


def test_the_events_tell_which_sessions_purchased(ask):
    assert ask("""
        select count(*) from true_sessions full join (select distinct transaction_id from events
            where event_name = 'purchase') bought on session_id = replace(transaction_id, 't', 's')
        where coalesce(purchased, false) <> (transaction_id is not null)
    """) == [(0,)]


def test_people_buy_what_they_have_a_taste_for(ask, truth):
    rows = ask("""
        select cast(substr(user_pseudo_id, 2) as int), item_category, count(*) from events join items using (item_id)
        where event_name = 'purchase' group by all
    """)
    bought = np.zeros_like(truth.taste)
    for person, category, n in rows:
        bought[person, CATEGORIES.index(category)] = n
    expected = bought.sum(axis=1) @ truth.taste.max(axis=1) / bought.sum()
    in_favourite = bought[np.arange(len(bought)), truth.taste.argmax(axis=1)].sum() / bought.sum()
    assert in_favourite > 0.4
    assert in_favourite == pytest.approx(expected, abs=0.05)


def test_people_buy_the_same_consumable_again_more_than_the_same_coat(ask):
    same_item = dict(
        ask("""
            with bought as (
                select user_pseudo_id, item_id, item_category, count(distinct transaction_id) as n
                from events join items using (item_id) where event_name = 'purchase' group by all),
            pairs as (
                select item_category, sum(n * (n - 1)) as same, sum(n) * (sum(n) - 1) as any_item
                from bought group by user_pseudo_id, item_category)
            select item_category in ('grocery', 'beauty', 'pets'), sum(same) / sum(any_item) from pairs group by 1
        """)
    )
    assert same_item[True] > 1.5 * same_item[False]


def write_abundant(folder, n_events, with_campaigns=False):
    """Write a shop that never runs out."""

    def fill_up(stockroom, day):
        stockroom.on_hand = np.full_like(stockroom.on_hand, 1e6)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stockroom, "receive", fill_up)
        write(folder, n_events, with_campaigns=with_campaigns)


@pytest.fixture(scope="module")
def ask_abundant(tmp_path_factory):
    """A shop that never runs out, in which sales are the uncensored demand."""
    folder = tmp_path_factory.mktemp("abundant")
    write_abundant(folder, 100_000)
    connection = duckdb.connect(config={"threads": 1})
    connection.execute(f"""
        create view demand as select true_demand.*, item_category, coalesce(units, 0) as units
        from read_parquet('{folder}/truth/demand.parquet') true_demand
        join read_parquet('{folder}/items.parquet') items using (item_id)
        left join (select item_id, cast(event_timestamp as date) as date, sum(quantity) as units
            from read_parquet('{folder}/events/*.parquet') where event_name = 'purchase' group by all) sold
        using (item_id, date)
    """)
    return lambda text: connection.execute(text).fetchall()


@pytest.mark.parametrize(
    "part", ["true", "promotion_factor > 1", "item_category", "month(date)", "dayofweek(date)", "ntile_by_size"]
)
def test_uncensored_sales_meet_the_expected_demand(ask_abundant, part):
    by_size = "ntile(5) over (order by expected_quantity) as ntile_by_size"
    for group, units, expected in ask_abundant(f"""
        select {part}, sum(units), sum(expected_quantity) from (select *, {by_size} from demand) group by 1
    """):
        assert abs(units - expected) < 3.5 * np.sqrt(VARIANCE_OVER_MEAN * expected), group


def test_promotions_raise_sales_by_their_factor(ask_abundant):
    """The sales of promoted days over those of the same items' other days, scaled to as many days."""
    [(units, usual, expected)] = ask_abundant("""
        with others as (
            select item_id, avg(units) as units_a_day from demand where promotion_factor = 1 group by item_id)
        select sum(units), sum(units_a_day), sum(units_a_day * promotion_factor)
        from demand join others using (item_id) where promotion_factor > 1
    """)
    assert expected / usual > 1.5
    assert units / usual == pytest.approx(expected / usual, rel=0.15)


def test_stock_outs_censor_sales(ask):
    [(units, expected)] = ask("""
        select sum(coalesce(units, 0)), sum(expected_quantity) from true_demand
        left join (select item_id, cast(event_timestamp as date) as date, sum(quantity) as units from events
            where event_name = 'purchase' group by all) using (item_id, date)
        where out_of_stock and (item_id, date) in (select (item_id, date) from stock where on_hand = 0)
    """)
    assert units == 0
    assert expected > 20


def test_offers_state_what_was_paid_and_reach_into_the_future(ask, truth):
    assert ask("""
        select count(*) from events join items using (item_id)
        left join offers on events.item_id = offers.item_id and cast(event_timestamp as date) = offers.date
        where event_name <> 'refund' and events.price <> coalesce(offers.price, items.price)
    """) == [(0,)]
    last = truth.days[-1].astype(object)
    assert 28 <= (ask("select max(date) from offers")[0][0] - last).days <= 42
    [(n_offers, n_factors)] = ask(f"""
        select (select count(*) from offers where date <= date '{last}'),
            (select count(*) from true_demand where promotion_factor > 1)
    """)
    assert n_offers == n_factors


def test_nothing_is_bought_while_it_is_out_of_stock(ask):
    stock_outs = "stock.available_fraction < 1"
    assert ask(f"select count(*) > 100, count(*) filter (on_hand > 0) > 10 from stock where {stock_outs}") == [
        (True, True)
    ]
    assert ask(f"""
        select count(*) from events join stock
            on events.item_id = stock.item_id and cast(event_timestamp as date) = stock.date
        where event_name = 'purchase' and {stock_outs}
            and epoch_us(event_timestamp) - epoch_us(cast(date as timestamp)) > available_fraction * 86400e6 + 1
    """) == [(0,)]
    assert ask("""
        select count(*) from true_demand join stock using (item_id, date) where out_of_stock <> (available_fraction < 1)
    """) == [(0,)]


def test_no_more_is_sold_than_was_on_hand_and_stock_moves_by_sales_and_arrivals(ask):
    assert ask("""
        with sold as (
            select item_id, cast(event_timestamp as date) as date, sum(quantity) as units from events
            where event_name = 'purchase' group by all),
        moved as (
            select item_id, on_hand - coalesce(units, 0) as left_over,
                lead(on_hand) over (partition by item_id order by date) as next_on_hand,
                on_order - greatest(lead(on_order) over (partition by item_id order by date), 0) as arrived_less_ordered
            from stock left join sold using (item_id, date))
        select count(*) filter (left_over < 0), count(*) filter (next_on_hand < left_over),
            count(*) filter (next_on_hand - left_over < arrived_less_ordered) from moved
    """) == [(0, 0, 0)]


def test_large_shops_keep_the_notable_days_of_stock(tmp_path, monkeypatch, ask):
    monkeypatch.setattr(tables, "DENSE_STOCK_ROWS", 0)
    write(tmp_path, N_EVENTS)
    sparse = f"read_parquet('{tmp_path}/stock.parquet')"
    [(n_sparse, n_dense)] = ask(f"select (select count(*) from {sparse}), (select count(*) from stock)")
    assert n_sparse < n_dense / 3
    assert ask(f"select * from {sparse} except select * from stock") == []
    assert ask(f"select * from stock where available_fraction < 1 except select * from {sparse}") == []
    latest = "select item_id, max_by(available_fraction, date) > 0 from {} group by item_id"
    assert ask(f"{latest.format('stock')} except {latest.format(sparse)}") == []


def test_guests_log_in_and_are_known_from_then_on(ask):
    logins = (
        "(select user_pseudo_id, min(event_timestamp) as login_at from events where event_name = 'login' group by 1)"
    )
    [(n_guests, n_later)] = ask("""
        select count(*) filter (n_known = 0), count(*) filter (n_known > 0 and n_known < n) from (
            select count(user_id) as n_known, count(*) as n from events group by user_pseudo_id)
    """)
    assert n_guests > 50
    assert n_later > 50
    assert ask(f"""
        select count(*) from events join {logins} logins using (user_pseudo_id)
        where event_name <> 'refund' and (user_id is not null) <> (event_timestamp >= login_at)
    """) == [(0,)]
    assert ask(
        "select count(distinct user_id) - count(distinct user_pseudo_id) from events where user_id is not null"
    ) == [(0,)]
    assert ask("select count(*) from events anti join users using (user_id) where user_id is not null") == [(0,)]


def test_some_people_send_no_session_and_pauses_within_a_session_stay_below_30_minutes(ask):
    [(share, longest)] = ask("""
        select avg(cast(session_id is null as int)), max(pause) from (
            select session_id, event_timestamp - lag(event_timestamp) over (partition by session_id
                order by event_timestamp) as pause
            from events where event_name <> 'refund')
    """)
    assert 0.1 < share < 0.3
    assert ask("""
        select count(*) from (select max(event_timestamp) - min(event_timestamp) as length from events
            where session_id is not null group by session_id) where length > interval 30 minutes
    """) == [(0,)]
    assert longest is not None


def test_items_are_seen_only_while_listed(ask):
    assert ask(
        "select count(*) filter (created_at > timestamp '2023-01-02') > 10, "
        "count(*) filter (availability = 'hidden') > 0 from items"
    ) == [(True, True)]
    assert ask("""
        select count(*) from events join items using (item_id) where event_name <> 'refund'
            and (event_timestamp < created_at or (availability = 'hidden' and event_timestamp >= valid_from))
    """) == [(0,)]


def test_refunds_return_a_purchase_later_and_once(ask):
    assert ask("select count(*) > 20 from events where event_name = 'refund'") == [(True,)]
    assert ask("""
        select count(*) from (from events where event_name = 'refund') refunds left join
            (from events where event_name = 'purchase') purchases using (transaction_id, item_id, quantity, price)
        where purchases.event_timestamp is null or purchases.event_timestamp >= refunds.event_timestamp
    """) == [(0,)]


def test_a_share_of_events_is_received_late(ask):
    [(share, earliest)] = ask("""
        select avg(cast(received_at > event_timestamp as int)), min(received_at - event_timestamp) from events
    """)
    assert share == pytest.approx(LATE_SHARE, rel=0.3)
    assert earliest.total_seconds() == 0


def test_the_truth_returned_is_the_truth_written(ask, truth):
    rows = ask("select base, conversion from true_items order by cast(substr(item_id, 2) as int)")
    np.testing.assert_array_equal(np.array(rows), np.column_stack([truth.base, truth.conversion]))
    tastes = ", ".join(f"taste_{category}" for category in CATEGORIES)
    rows = ask(f"select activity, {tastes} from true_users order by cast(substr(user_pseudo_id, 2) as int)")
    np.testing.assert_array_equal(np.array(rows), np.column_stack([truth.activity, truth.taste]))
    np.testing.assert_allclose([truth.base.sum(), truth.activity.sum()], 1)
    assert ask("select count(distinct date) from true_demand") == [(len(truth.days),)]


@pytest.mark.parametrize("name", ["seeded", "campaigns"])
def test_the_shop_file_names_what_is_written(tmp_path, name):
    with_campaigns = name == "campaigns"
    write(tmp_path, 10_000, with_campaigns=with_campaigns)
    shop = tomllib.loads((SHOPS / f"{name}.toml").read_text())
    assert set(shop["tables"]) == {*table_names(), *["campaign_touches"] * with_campaigns}
    for table in shop["tables"].values():
        assert list(tmp_path.glob(table["path"].removeprefix("$SHOPKEEPER_HOME/seeded/source/")))


@pytest.fixture(scope="module")
def ask_campaigns(tmp_path_factory):
    """A shop that never runs out and sends campaigns: a row of ``touches`` has what was sent, what followed, the truth.

    ``days_since_order`` counts from the last order before the touch.
    """
    folder = tmp_path_factory.mktemp("campaigns")
    write_abundant(folder, 150_000, with_campaigns=True)
    connection = duckdb.connect(config={"threads": 1})
    connection.execute(f"""
        create view campaign_touches as from read_parquet('{folder}/campaign_touches.parquet');
        create view events as from read_parquet('{folder}/events/*.parquet');
        create table touches as
        with orders as (
            select replace(user_pseudo_id, 'd', 'u') as user_id, event_timestamp as ordered_at
            from events where event_name = 'purchase'),
        followed as (
            select sent.*, max(ordered_at) filter (ordered_at < sent_at) as last_order_at,
                count_if(ordered_at >= sent_at and ordered_at < sent_at + interval 28 days) > 0 as bought
            from campaign_touches sent left join orders using (user_id) group by all)
        select *, if(treated, probability_treated, probability_held_out) as probability,
            date_diff('day', last_order_at, sent_at) as days_since_order
        from followed join read_parquet('{folder}/truth/campaigns.parquet') using (user_id, campaign_id, sent_at)
    """)
    return lambda text: connection.execute(text).fetchall()


def test_campaign_touches_keep_the_contract(ask_campaigns):
    described = {column: kind for column, kind, *_ in ask_campaigns("describe campaign_touches")}
    assert described.items() <= contract.CAMPAIGN_TOUCHES.types().items()
    for predicate in predicates(contract.CAMPAIGN_TOUCHES, described):
        assert ask_campaigns(f"select count(*) from campaign_touches where ({predicate}) is not true") == [(0,)]
    key = ", ".join(contract.CAMPAIGN_TOUCHES.key)
    assert ask_campaigns(f"select {key} from campaign_touches group by all having count(*) > 1") == []


def test_customers_are_held_out_at_random_every_four_weeks(ask_campaigns):
    sent = ask_campaigns("""
        select campaign_id, sent_at, count(distinct channel), avg(cast(treated as int)), max(if(treated, 0, cost)),
            min(if(treated, cost, 1)) from touches group by all order by sent_at
    """)
    first, last = ask_campaigns("select min(event_timestamp), max(event_timestamp) from events")[0]
    assert len(sent) == ((last - first).days + 1) // 28 - 1
    for number, (campaign_id, sent_at, n_channels, share, held_out_cost, least_cost) in enumerate(sent, 1):
        assert campaign_id == f"c{number}"
        assert (sent_at - first.replace(hour=0, minute=0, second=0, microsecond=0)).days == 28 * number
        assert (n_channels, held_out_cost) == (1, 0)
        assert share == pytest.approx(0.5, abs=0.06)
        assert least_cost > 0
    assert ask_campaigns("""
        select count(*) from touches join (select user_id, min(event_timestamp) as login_at from events
            where event_name = 'login' group by 1) using (user_id) where login_at >= sent_at
    """) == [(0,)]


@pytest.mark.parametrize("part", ["treated", "(treated, sign(effect))", "(treated, campaign_id)", "(treated, size)"])
def test_as_many_touches_are_followed_by_a_purchase_as_the_truth_says(ask_campaigns, part):
    for group, n, bought, expected, variance in ask_campaigns(f"""
        select {part}, count(*), count_if(bought), sum(probability), sum(probability * (1 - probability))
        from (select *, ntile(4) over (order by probability) as size from touches) group by 1
    """):
        assert n > 100
        assert abs(bought - expected) < 3.5 * np.sqrt(variance), group


def test_the_direction_of_an_effect_can_be_told_from_the_last_order(ask_campaigns):
    assert ask_campaigns("""
        select count(*) from touches where sign(effect) <>
            case when days_since_order <= 14 then -1 when days_since_order between 29 and 56 then 1 else 0 end
    """) == [(0,)]
    shares = dict(ask_campaigns("select sign(effect), count(*) / sum(count(*)) over () from touches group by 1"))
    assert shares[1] > 0.1
    assert shares[-1] > 0.1
    assert shares[0] > 0.5


def test_a_campaign_works_for_four_weeks():
    shop = Shop(10_000, seed=0, with_campaigns=True)
    campaigns, everybody = Campaigns(shop), np.ones(shop.scale.n_users, bool)
    campaigns.last_order_day[:] = -12
    worked = []
    for day in range(shop.scale.n_days):
        campaigns.open(day, everybody)
        worked.append((campaigns.logit != shop.people.logit).any())
    assert np.flatnonzero(worked).tolist() == list(range(28, 56))
    assert shop.scale.n_days > 60


def test_campaigns_change_nothing_before_the_first_of_them(tmp_path):
    for name, with_campaigns in (("with", True), ("without", False)):
        write(tmp_path / name, 10_000, with_campaigns=with_campaigns)
    first = pq.read_table(tmp_path / "with" / "campaign_touches.parquet")["sent_at"][0].as_py()
    days = duckdb.connect(config={"threads": 1})
    before = "select * from read_parquet('{}/{}/events/*.parquet') where event_timestamp < '{}'"
    one, other = (before.format(tmp_path, name, first) for name in ("with", "without"))
    assert days.execute(f"select count(*) > 1000 from ({one})").fetchall() == [(True,)]
    assert days.execute(f"({one}) except ({other})").fetchall() == []
    assert not list((tmp_path / "without").rglob("campaign*"))


def test_a_shop_too_short_for_campaigns_is_refused(tmp_path):
    with pytest.raises(UserError, match="of 1000 events lasts 28 days, one with campaigns 56 or more"):
        write(tmp_path, 1_000, with_campaigns=True)


def test_a_shop_too_small_is_refused(tmp_path):
    with pytest.raises(UserError, match="of 999 events is too small: ask for 1000 or more"):
        write(tmp_path, 999)


def test_the_command_writes_below_shopkeeper_home(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["seeded", "--events", "1000"])
    main()
    assert (tmp_path / "seeded" / "source" / "events" / "events.parquet").exists()
    assert "28 days, 35 people, 47 items" in capsys.readouterr().out


def test_the_command_adds_campaigns(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["seeded", "--events", "10000", "--campaigns", "--out", str(tmp_path)])
    main()
    assert (tmp_path / "campaign_touches.parquet").exists()


def test_the_command_exits_with_2_and_the_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["seeded", "--events", "10", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "is too small" in capsys.readouterr().err
