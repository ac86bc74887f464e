"""The contract of tiers, held by each: on a checkerboard, even people choose even items, odd people odd ones."""

from pathlib import Path

import numpy as np
import pytest

from features.histories import NO_ATTRIBUTES, Attributes, EventWeights, Histories, Log
from serving import tiers
from serving.artifact import Artifact, Draft
from serving.tier_classes import CLASSES
from serving.tiers import Tier
from training.config import Config
from training.device import choose
from training.recommend.config import TiersConfig
from training.recommend.registry import FITTED_BY, fit_tier

N_ITEMS, N_USERS = 12, 40
EVENTS = EventWeights(np.array([0.1, 0.5, 1.0], np.float32), np.full(3, 90.0, np.float32))
SMALL = {"width": 16, "n_epochs": 30, "batch_size": 64, "dropout": 0.1, "weight_decay": 0.01}
SETTINGS = {"sequence": SMALL, "pooled": SMALL}
KNOWS_COLOURS = ("cooccurrence", "linear", "als", "bpr", "pooled", "sequence")
"""Tiers that go from the items of a history to others."""


def checkerboard(n_items: int = N_ITEMS) -> Log:
    """Each person has most of the items of its colour, some twice, in a random order; the last item is untouched."""
    rng = np.random.default_rng(3)
    touched = np.arange(max(1, n_items - 2))
    chosen = [rng.permutation(np.append(own := touched[touched % 2 == user % 2], own[:2])) for user in range(N_USERS)]
    chosen = [items[: max(1, len(items) - 1)] for items in chosen]
    starts = np.concatenate([[0], np.cumsum([len(items) for items in chosen])])
    n = int(starts[-1])
    ages = np.concatenate([np.arange(len(items), 0, -1) for items in chosen]).astype(np.float32)
    histories = Histories(starts, np.concatenate(chosen).astype(np.int32), np.full(n, 2, np.int8), ages)
    colours = Attributes(np.arange(n_items, dtype=np.int32), (np.arange(n_items) % 2).astype(np.int32), ["even", "odd"])
    names = [[f"{kind}{place:02}" for place in range(count)] for kind, count in (("u", N_USERS), ("i", n_items))]
    visits = (histories.users * 100 + histories.from_last // 3).astype(np.int32)
    return Log(names[0], names[1], histories, visits, colours)


def settings(name: str) -> Config:
    return getattr(TiersConfig.model_validate({name: SETTINGS.get(name, {})}), name)


def fitted(name: str, log: Log) -> Tier:
    return fit_tier(name, log, settings(name), EVENTS, choose("cpu"))


@pytest.fixture(scope="module")
def log() -> Log:
    return checkerboard()


@pytest.fixture(scope="module", params=FITTED_BY)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def tier(name: str, log: Log, tmp_path_factory: pytest.TempPathFactory) -> Tier:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPKEEPER_HOME", str(tmp_path_factory.mktemp("home")))
        return fitted(name, log)


def test_every_tier_is_configured_and_read() -> None:
    assert set(FITTED_BY) == set(TiersConfig.model_fields) == set(CLASSES)


def test_scores_are_finite_float32_for_everybody(tier: Tier, log: Log) -> None:
    scores = tier.scores(log.histories)
    assert scores.shape == (N_USERS, N_ITEMS)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", KNOWS_COLOURS, scope="module")
@pytest.mark.parametrize("item", [0, 1])
def test_people_of_one_colour_get_items_of_theirs(tier: Tier, item: int) -> None:
    best = np.argsort(-tier.scores(Histories.of([item, item + 2]))[0])[:4]
    assert set(best % 2) == {item}


def test_a_batch_is_scored_as_each_alone(tier: Tier, log: Log) -> None:
    histories = log.histories.take(np.array([3, 0, 17, 3]))
    alone = [tier.scores(histories.take(np.array([place]))) for place in range(4)]
    np.testing.assert_allclose(tier.scores(histories), np.concatenate(alone), rtol=1e-4, atol=1e-5)


def test_what_is_loaded_scores_as_what_was_fitted(tier: Tier, name: str, log: Log, tmp_path: Path) -> None:
    draft = Draft(tmp_path / "artifact")
    tiers.save(draft, name, tier)
    loaded = tiers.load(Artifact(draft.folder), name, CLASSES[name])
    np.testing.assert_array_equal(loaded.scores(log.histories), tier.scores(log.histories))


def test_the_same_data_give_the_same_scores(tier: Tier, name: str, log: Log) -> None:
    np.testing.assert_array_equal(fitted(name, log).scores(log.histories), tier.scores(log.histories))


def test_no_history_gives_no_preference(tier: Tier, name: str) -> None:
    scores = tier.scores(Histories.of([]))
    assert scores.shape == (1, N_ITEMS)
    assert name == "popularity" or np.ptp(scores) == 0


def test_an_empty_batch_gives_no_rows(tier: Tier) -> None:
    assert tier.scores(Histories.of([1]).take(np.array([], np.int64))).shape == (0, N_ITEMS)


def test_an_untouched_item_is_scored(tier: Tier) -> None:
    assert np.isfinite(tier.scores(Histories.of([N_ITEMS - 1]))).all()


def test_a_history_of_100_000_events_is_scored(tier: Tier) -> None:
    scores = tier.scores(Histories.of(np.arange(100_000) % N_ITEMS))
    assert np.isfinite(scores).all()


def test_a_catalogue_of_one_item(name: str) -> None:
    log = checkerboard(n_items=1)
    assert fitted(name, log).scores(log.histories).shape == (N_USERS, 1)


def test_items_without_attributes(name: str, log: Log) -> None:
    bare = Log(log.user_ids, log.item_ids, log.histories, log.visits, NO_ATTRIBUTES)
    assert np.isfinite(fitted(name, bare).scores(log.histories)).all()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path))
