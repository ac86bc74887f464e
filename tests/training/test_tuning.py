"""The search goes on where it ended, begins with the configuration as it stands, and finds the better value."""

from pathlib import Path

import pytest

from features.errors import UserError
from features.lake import Lake
from features.shops import Shop
from training import pipeline, tuning
from training.config import load_config, to_toml
from training.device import choose
from training.evaluation import Row, averaged
from training.families import family

SEARCH = """
config = "base.toml"
metric = "ndcg_at_10"
model = "blend"
higher_is_better = true

[space]
"events.view" = { low = 0.0, high = 1.0 }
"min_users" = { choices = [1, 5] }
"""


@pytest.fixture
def search(tmp_path: Path) -> Path:
    (tmp_path / "base.toml").write_text("min_users = 5\n[events]\nview = 0.25\n")
    (tmp_path / "some.search.toml").write_text(SEARCH)
    return tmp_path / "some.search.toml"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list:
    """Instead of fitting: a configuration is the better the nearer ``events.view`` is to .8."""
    asked = []

    def quality(_shop: Shop, _family: object, config: object, *_: object) -> list[Row]:
        asked.append(config)
        value = 1 - abs(config.events.view - 0.8)
        return [Row("blend", "time", "all", False, "ndcg_at_10", value, None, None, 1)]

    monkeypatch.setattr(pipeline, "evaluate", quality)
    return asked


class Named:
    name = "2020-01-01"


def run(shop: Shop, path: Path, n_trials: int, n_windows: int = 1) -> dict:
    found, place = tuning.load_search("recommend", path)
    windows = [Named()] * n_windows
    return tuning.tune(shop, family("recommend"), found, place, windows, "time", choose("cpu"), n_trials)


def test_the_configuration_as_it_stands_is_trial_0(shop: Shop, search: Path, judged: list) -> None:
    run(shop, search, 1)
    assert (judged[0].events.view, judged[0].min_users) == (0.25, 5)


def test_a_later_run_goes_on(shop: Shop, search: Path, judged: list) -> None:
    best = run(shop, search, 15)
    n_before = len(judged)
    better = run(shop, search, 10)
    assert len(judged) == n_before + 10
    assert len({config.events.view for config in judged}) == len(judged)
    assert abs(better["events.view"] - 0.8) <= abs(best["events.view"] - 0.8) < 0.3


def test_trials_without_hope_end_with_their_first_window(shop: Shop, search: Path, judged: list) -> None:
    (search.parent / "hope.search.toml").write_text(SEARCH)
    run(shop, search.with_name("hope.search.toml"), 15, n_windows=2)
    assert 15 + 5 < len(judged) < 2 * 15


def test_demand_is_searched_on_windows_before_the_one_that_judges(shop: Shop, tmp_path: Path) -> None:
    of, lake = family("demand"), Lake(shop)
    base = "horizon = 7\nmin_periods = 14\nn_origins = 2\n[trees]\nn_trees = 5\n[shape]\nn_trees = 3\n"
    space = (
        '[space]\n"trees.num_leaves" = { low = 3, high = 31 }\n"tweedie_variance_power" = { choices = [1.2, 1.5] }\n'
    )
    (tmp_path / "base.toml").write_text(base)
    path = tmp_path / "demand.search.toml"
    path.write_text(f'config = "base.toml"\nmetric = "pinball"\nmodel = "trees"\nhigher_is_better = false\n{space}')
    search, _ = tuning.load_search("demand", path)
    config = load_config(of.config, of.task, tmp_path / "base.toml")
    windows = pipeline.tuning_windows(lake.engine(), shop, of, config, lake.end(), "time", 2)
    (judging,) = pipeline.windows(lake.engine(), shop, of, config, lake.end(), "time", 1)
    assert windows[-1].end == judging.as_of
    told: list[tuple[float, dict]] = []
    tell = lambda _, value, values: told.append((value, values))  # noqa: E731
    best = tuning.tune(shop, of, search, path, windows, "time", choose("cpu"), 3, tell)
    (as_it_stands, first), *_ = told
    assert first == {"trees.num_leaves": config.trees.num_leaves, "tweedie_variance_power": 1.5}
    rows = pipeline.evaluate(shop, of, config, choose("cpu"), windows, "time")
    assert as_it_stands == pytest.approx(averaged(rows, "trees")["pinball"])
    assert best == min(told, key=lambda each: each[0])[1]


def test_what_was_found_is_a_configuration(shop: Shop, search: Path, judged: list, tmp_path: Path) -> None:
    best = run(shop, search, 3)
    tuned = tuning.laid_over(family("recommend"), search.parent / "base.toml", best)
    (tmp_path / "tuned.toml").write_text(to_toml(tuned.model_dump()))
    assert load_config(type(tuned), "recommend", tmp_path / "tuned.toml") == tuned


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ('"min_users" = { low = 1 }', "give either choices, or low and high"),
        ('"min_users" = { choices = [1], low = 1, high = 2 }', "give either choices, or low and high"),
        ("", "space: Dictionary should have at least 1 item"),
    ],
)
def test_a_wrong_search_is_told(tmp_path: Path, wrong: str, told: str) -> None:
    path = tmp_path / "wrong.search.toml"
    path.write_text(SEARCH.split("[space]")[0] + "[space]\n" + wrong)
    with pytest.raises(UserError, match=told):
        tuning.load_search("recommend", path)


def test_a_missing_search_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no search .*absent.toml: there are "):
        tuning.load_search("recommend", tmp_path / "absent.toml")
