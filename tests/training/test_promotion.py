"""The gate: a candidate is refused for any measure in which it is worse, and the sentence says for which."""

import math
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.ingest import ingest
from features.shops import Shop, load_shop
from serving.artifact import FORMAT_VERSION
from training import pipeline, promotion, tracking
from training.config import BoosterConfig
from training.demand.config import DemandConfig
from training.device import choose
from training.families import Family, Guard, family
from training.promotion import Decision, judged

CHAMPION = {"pinball": 0.2, "coverage_error": 0.02, "cost": 1000.0}
MEASURES = st.fixed_dictionaries({name: st.floats(1e-6, 1e6) for name in CHAMPION})


@pytest.fixture(scope="module")
def of() -> Family:
    return family("demand")


def test_better_in_pinball_and_worse_in_coverage_is_refused(of: Family) -> None:
    promoted, reason = judged(of, CHAMPION | {"pinball": 0.1, "coverage_error": 0.031}, CHAMPION)
    assert not promoted
    assert reason == "coverage_error 0.03100 is worse than the champion's 0.02000 by more than 0.01"


def test_the_refusal_names_every_measure_that_failed(of: Family) -> None:
    promoted, reason = judged(of, {"pinball": 0.3, "coverage_error": 0.02, "cost": 1010.5}, CHAMPION)
    assert not promoted
    assert reason == (
        "pinball 0.30000 is worse than the champion's 0.20000, "
        "cost 1,010.50 is worse than the champion's 1,000.00 by more than 1%"
    )


def test_what_is_a_little_worse_in_a_guard_is_promoted_and_told(of: Family) -> None:
    promoted, reason = judged(of, {"pinball": 0.1, "coverage_error": 0.01, "cost": 1009.0}, CHAMPION)
    assert promoted
    assert reason == (
        "pinball 0.10000 is better than the champion's 0.20000, "
        "coverage_error 0.01000 is better than the champion's 0.02000, "
        "cost 1,009.00 is worse than the champion's 1,000.00 by no more than 1%"
    )


@pytest.mark.parametrize("missing", [("cost",), ("cost", "coverage_error")])
def test_a_measure_that_one_of_them_lacks_plays_no_part(of: Family, missing: tuple[str, ...]) -> None:
    candidate = {name: value for name, value in CHAMPION.items() if name not in missing}
    promoted, reason = judged(of, candidate, CHAMPION)
    assert promoted
    assert not any(name in reason for name in missing)


@pytest.mark.parametrize("metric", CHAMPION)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_cannot_be_compared(of: Family, metric: str, value: float) -> None:
    for candidate, champion in ((CHAMPION | {metric: value}, CHAMPION), (CHAMPION, CHAMPION | {metric: value})):
        promoted, reason = judged(of, candidate, champion)
        assert not promoted
        assert reason.startswith(f"{metric} cannot be compared")


@given(candidate=MEASURES, champion=MEASURES)
def test_only_what_every_measure_allows_is_promoted(candidate: dict[str, float], champion: dict[str, float]) -> None:
    demand = family("demand")
    promoted, _ = judged(demand, candidate, champion)
    assert promoted == (
        candidate["pinball"] <= champion["pinball"]
        and candidate["coverage_error"] - champion["coverage_error"] <= 0.01
        and candidate["cost"] - champion["cost"] <= 0.01 * champion["cost"]
    )
    assert judged(demand, champion, champion)[0]
    assert not judged(demand, champion | {"pinball": 2 * champion["pinball"]}, champion)[0]


def test_more_is_better_where_the_family_says_so() -> None:
    recommend = family("recommend")
    assert judged(recommend, {"ndcg_at_10": 0.2}, {"ndcg_at_10": 0.1})[0]
    assert not judged(recommend, {"ndcg_at_10": 0.1}, {"ndcg_at_10": 0.2})[0]
    assert not Guard("recall", 0.05, higher_is_better=True).allows(0.1, 0.2)


N_WEEKS, N_ITEMS = 48, 12
TREES = BoosterConfig(n_trees=10, learning_rate=0.3, num_leaves=4, min_data_in_leaf=10)
CONFIG = DemandConfig(horizon=3, min_periods=5, n_origins=3, trees=TREES, shape=TREES, quantiles=(0.1, 0.5, 0.9))
ORDERS_LESS = CONFIG.model_copy(update={"carry": 20.0})
"""The same forecast, whose orders are charged so much for what is left over that they leave demand unserved."""
TOML = """
name = "mini"
[tables]
demand.path = "demand.csv"
supply.path = "supply.csv"
"""


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sales of a shop; its terms of supply are each test's own."""
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    units = np.random.default_rng(4).poisson(4 + 3 * np.arange(N_ITEMS)[:, None], (N_ITEMS, N_WEEKS))
    sold = [
        f"i{item},{date(2023, 1, 2) + timedelta(weeks=week)},{units[item, week]}"
        for item in range(N_ITEMS)
        for week in range(N_WEEKS)
    ]
    (tmp_path / "demand.csv").write_text("\n".join(["item_id,date,quantity", *sold]) + "\n")
    (tmp_path / "mini.toml").write_text(TOML)
    return tmp_path


def with_terms(folder: Path, terms: str) -> Shop:
    rows = [f"i{item},{terms}" for item in range(N_ITEMS)]
    (folder / "supply.csv").write_text("\n".join(["item_id,lead_time_days,holding_cost,shortage_cost", *rows]) + "\n")
    shop = load_shop(str(folder / "mini.toml"))
    ingest(shop)
    return shop


def challenged(shop: Shop, of: Family, candidate: DemandConfig) -> Decision:
    """What becomes of a candidate whose champion has ``CONFIG``."""
    for config in (CONFIG, candidate):
        pipeline.train(shop, of, config, choose("cpu"))
        decision = promotion.promote(shop, of, choose("cpu"))
    return decision


def test_what_forecasts_as_well_and_orders_at_a_higher_cost_is_refused(mini: Path, of: Family) -> None:
    refused = challenged(with_terms(mini, "7,0.01,5"), of, ORDERS_LESS)
    assert not refused.promoted
    assert refused.reason.startswith("cost ")
    assert refused.reason.endswith("by more than 1%")
    measured = [(row.model, row.metric) for row in refused.rows]
    each = ["pinball", "coverage_error", "cost", "cost"]
    assert measured == [(role, metric) for role in ("candidate 2", "champion 1") for metric in each]


def test_the_same_forecast_again_is_promoted_by_all_three_measures(mini: Path, of: Family) -> None:
    decision = challenged(with_terms(mini, "7,0.01,5"), of, CONFIG)
    assert decision.promoted
    assert [part.split()[0] for part in decision.reason.split(", ") if " is " in part] == list(CHAMPION)
    assert decision.reason.count("is equal to") == 3


def test_without_costs_of_supply_money_plays_no_part(mini: Path, of: Family) -> None:
    decision = challenged(with_terms(mini, "7,,"), of, ORDERS_LESS)
    assert decision.promoted
    assert {row.metric for row in decision.rows} == {"pinball", "coverage_error"}


def test_what_cannot_be_replayed_is_told_and_does_not_stand_in_the_way(mini: Path, of: Family) -> None:
    decision = challenged(with_terms(mini, "21,0.01,5"), of, ORDERS_LESS)
    assert decision.promoted
    assert "; cost not compared: an order of item i0 must last 4 weeks" in decision.reason


def test_a_champion_of_an_earlier_release_gives_way(mini: Path, of: Family) -> None:
    shop = with_terms(mini, "7,,")
    for _ in range(2):
        pipeline.train(shop, of, CONFIG, choose("cpu"))
    assert promotion.promote(shop, of, choose("cpu"), "1").promoted
    manifest = tracking.artifact_of(shop, of.task, "1").folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"format_version": {FORMAT_VERSION}', '"format_version": 1'))
    decision = promotion.promote(shop, of, choose("cpu"))
    assert (decision.candidate, decision.champion, decision.promoted) == ("2", "1", True)
    assert "the champion cannot serve" in decision.reason
    assert "has artifact format 1" in decision.reason
    assert tracking.champion(shop, of.task) == "2"
