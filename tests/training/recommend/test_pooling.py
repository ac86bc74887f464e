"""The pooled tier predicts each item of a history from the others, exactly as stated."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from features.histories import Histories
from serving.factors import Ratings
from serving.pooled import Pooled
from training.device import choose
from training.recommend import cross_entropy
from training.recommend.pooled import PooledConfig
from training.recommend.pooling import Pooling

N_ITEMS = 9
CPU = choose("cpu")
SMALL = PooledConfig(width=8, batch_size=16, n_epochs=3, dropout=0.0, learning_rate=0.05)


def ratings() -> Ratings:
    """Thirty people with none to five of the first eight items; the ninth is untouched."""
    rng = np.random.default_rng(0)
    items = [np.sort(rng.permutation(N_ITEMS - 1)[:n]) for n in rng.integers(0, 6, 30)]
    starts = np.concatenate([[0], np.cumsum([len(of_one) for of_one in items])])
    return Ratings(starts, np.concatenate(items), rng.random(starts[-1]).astype(np.float32) + 0.1)


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors differ in whether they have bfloat16."""
    monkeypatch.setattr(cross_entropy, "reduced_precision", lambda _: torch.float32)


def test_losses_of_three_steps_are_as_recorded() -> None:
    pooling = Pooling(ratings(), N_ITEMS, SMALL, CPU)
    step = next(pooling.steps())
    assert [pooling.update(*step).item() for _ in range(3)] == pytest.approx(GOLDEN, rel=1e-4)


GOLDEN = [10.027470588684082, 6.8165178298950195, 3.8676624298095703]


def test_an_item_is_predicted_from_the_others_of_its_person() -> None:
    pooling = Pooling(ratings(), N_ITEMS, SMALL, CPU)
    vectors = pooling.vectors_VD.detach().clone()
    directions = functional.normalize(vectors, dim=1)[: N_ITEMS - 1]
    entries, own = next(pooling.steps())
    expected, total = 0.0, 0.0
    for entry, person in zip(entries, own, strict=True):
        others = [other for other, of in zip(entries, own, strict=True) if of == person and other != entry]
        read = sum(pooling.affinities[other] * vectors[pooling.items[other]] for other in others)
        logits = directions @ functional.normalize(read, dim=0) / SMALL.temperature
        affinity = pooling.affinities[entry]
        expected += affinity * (logits.logsumexp(0) - logits[pooling.items[entry]])
        total += affinity
    assert pooling.update(entries, own).item() == pytest.approx((expected / total).item(), rel=1e-5)


def test_an_epoch_tells_every_item_of_those_with_several_once() -> None:
    given = ratings()
    pooling = Pooling(given, N_ITEMS, SMALL, CPU)
    steps = list(pooling.steps())
    assert len(steps) == pooling.steps_per_epoch > 1
    lengths = np.diff(given.starts)
    expected = np.flatnonzero(np.repeat(lengths, lengths) > 1)
    np.testing.assert_array_equal(np.sort(torch.cat([entries for entries, _ in steps]).numpy()), expected)
    assert max(len(entries) for entries, _ in steps) <= SMALL.batch_size + lengths.max()


def test_an_item_that_nobody_touched_points_nowhere() -> None:
    pooling = Pooling(ratings(), N_ITEMS, SMALL, CPU)
    pooling.epoch()
    assert not pooling.vectors_VD[N_ITEMS - 1].any()
    assert pooling.vectors_VD[: N_ITEMS - 1].norm(dim=1).min() > 0


def test_a_history_points_where_its_weighted_vectors_do() -> None:
    directions = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    lengths, half_lives = np.array([2, 1, 1], np.float32), np.full(3, 10, np.float32)
    pooled = Pooled(directions, lengths, np.array([0.5, 1, 1], np.float32), half_lives)
    ages = np.array([0, 10], np.float32)
    viewed_and_bought = Histories(np.array([0, 2]), np.array([0, 1], np.int32), np.array([0, 2], np.int8), ages)
    expected = np.array([0.5 * 2, 0.5 * 1]) / np.hypot(1, 0.5)
    np.testing.assert_allclose(pooled.scores(viewed_and_bought)[0], directions @ expected, rtol=1e-6)


def test_nothing_to_learn_from_leaves_nothing_learned() -> None:
    alone = Ratings(np.array([0, 1, 1]), np.array([3]), np.ones(1, np.float32))
    assert Pooling(alone, N_ITEMS, SMALL, CPU).epoch() == 0.0
