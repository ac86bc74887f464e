from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from features import contract
from features.engine import Engine, empty
from features.errors import UserError
from features.targets import Target
from features.units import Touches
from features.windows import before
from training.campaigns import campaigns
from training.config import BoosterConfig
from training.uplift import UpliftConfig

FIRST_DAY = datetime(2024, 1, 1)
AS_OF = datetime(2024, 9, 1, tzinfo=UTC)
N_CUSTOMERS = 1500
TARGET = Target(unit="touch", horizon_days=7)
QUICK = UpliftConfig(model="s_learner", trees=BoosterConfig(num_leaves=4, learning_rate=0.1, n_trees=60))


def rows(seed=0):
    """Campaigns every four weeks move those alone who ordered within two weeks before."""
    rng = np.random.default_rng(seed)
    orders, sent = [], []
    for day in range(28, 224, 28):
        orders += [("guest", day)]
        lately = rng.random(N_CUSTOMERS) < 0.5
        treated = rng.random(N_CUSTOMERS) < 0.5
        answered = rng.random(N_CUSTOMERS) < 0.15 + 0.4 * (lately & treated)
        orders += [(f"u{n}", day - (5 if lately[n] else 20)) for n in range(N_CUSTOMERS)]
        orders += [(f"u{n}", day + 3) for n in np.flatnonzero(answered)]
        sent += [(f"u{n}", f"c{day}", day, bool(treated[n])) for n in range(N_CUSTOMERS)]
    return orders, sent


def shop(duckdb_shop: Engine, treated=lambda given: given) -> Engine:
    orders, sent = rows()
    events = [
        {
            "event_id": f"e{number}",
            "event_name": "purchase",
            "event_timestamp": FIRST_DAY + timedelta(days=day),
            "user_id": user if user.startswith("u") else None,
            "user_pseudo_id": user,
            "item_id": "i",
            "transaction_id": f"t{number}",
            "price": 5.0,
        }
        for number, (user, day) in enumerate(orders)
    ]
    touches = [
        {
            "user_id": user,
            "campaign_id": campaign,
            "sent_at": FIRST_DAY + timedelta(days=day),
            "treated": treated(given),
        }
        for user, campaign, day, given in sent
    ]
    return duckdb_shop.bind(
        events=pa.Table.from_pylist(events, schema=empty(contract.EVENTS).schema),
        campaign_touches=pa.Table.from_pylist(touches, schema=empty(contract.CAMPAIGN_TOUCHES).schema),
    )


@pytest.fixture(scope="module")
def log(duckdb_shop: Engine) -> Engine:
    return shop(duckdb_shop)


@pytest.fixture(scope="module")
def learnt(log: Engine):
    return campaigns(log, AS_OF, TARGET, QUICK)


def test_later_campaigns_show_that_the_order_is_worth_something(learnt) -> None:
    found = {row.metric: row for row in learnt.rows}
    assert found["qini"].low > 0
    assert found["uplift_at_30pct"].value == pytest.approx(0.4, abs=0.1)
    assert found["uplift_at_100pct"].value == pytest.approx(0.2, abs=0.06)


def test_every_customer_and_no_guest_is_in_the_audience_the_most_moved_first(learnt) -> None:
    uplift = learnt.audience["uplift"].to_pylist()
    assert learnt.audience.num_rows == N_CUSTOMERS
    assert "guest" not in learnt.audience["user_id"].to_pylist()
    assert uplift == sorted(uplift, reverse=True)
    assert "held out" in learnt.verdict


def test_later_events_change_nothing(log: Engine) -> None:
    until = datetime(2024, 7, 1, tzinfo=UTC)
    whole, known = campaigns(log, until, TARGET, QUICK), campaigns(before(log, until), until, TARGET, QUICK)
    assert whole.audience.equals(known.audience)
    assert whole.rows == known.rows


def test_held_out_touches_do_not_teach_who_answers(log: Engine) -> None:
    step, since = timedelta(days=1), datetime(2024, 1, 1, tzinfo=UTC)
    touched, everybody = (Touches(also).examples(log, TARGET, since, AS_OF, step) for also in (False, True))
    assert all(touched.table["treated"].to_pylist())
    assert 0.4 < len(touched) / len(everybody) < 0.6


def test_touches_that_do_not_say_who_was_treated_are_refused(duckdb_shop: Engine) -> None:
    with pytest.raises(UserError, match="do not say who was treated: give every touch `treated`"):
        campaigns(shop(duckdb_shop, treated=lambda _: None), AS_OF, TARGET, QUICK)
