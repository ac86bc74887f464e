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
    """Thirty people with none to five of the first eight items; the ninth is one person's only one."""
    rng = np.random.default_rng(0)
    items = [np.sort(rng.permutation(N_ITEMS - 1)[:n]) for n in rng.integers(0, 6, 29)] + [np.array([N_ITEMS - 1])]
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


GOLDEN = [7.841474533081055, 1.889847755432129, 0.6295652389526367]


@pytest.mark.parametrize("n_negatives", [0, 6])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_item_is_predicted_from_the_others_of_its_person(
    dropout: float, n_negatives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SMALL.model_copy(update={"dropout": dropout, "n_negatives": n_negatives})
    pooling = Pooling(ratings(), N_ITEMS, config, CPU)
    places, own = next(pooling.steps())
    items = pooling.items[places]
    draws = torch.rand(len(items))
    candidates, columns, inclusion = pooling.negatives.candidates(items)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draws)
    monkeypatch.setattr(pooling.negatives, "candidates", lambda _: (candidates, columns, inclusion))
    weights = pooling.weights[places] * (draws >= dropout)
    vectors = pooling.vectors_VD.detach().clone().requires_grad_()
    losses = []
    for place in range(len(items)):
        others = (own == own[place]) & (torch.arange(len(items)) != place)
        read = (weights[others, None] * vectors[items[others]]).sum(0)
        if not read.any():
            continue
        found = functional.normalize(vectors[candidates], dim=1) @ functional.normalize(read, dim=0) / SMALL.temperature
        against = found if inclusion is None else found - inclusion.log()
        against = torch.where(torch.isin(candidates, items[own == own[place]]), -torch.inf, against)
        against = torch.where(candidates == items[place], found, against)
        loss = against.logsumexp(0) - found[columns[place]]
        losses.append(pooling.weights[places[place]] * torch.stack([loss, torch.ones(())]))
    total, weight = torch.stack(losses).sum(0)
    expected = torch.autograd.grad(total / weight.detach(), vectors)[0]
    loss = pooling._loss(items, pooling.weights[places], own)
    torch.testing.assert_close(loss, (total / weight).detach())
    torch.testing.assert_close(torch.autograd.grad(loss, pooling.vectors_VD)[0], expected, rtol=1e-3, atol=1e-3)


def test_an_epoch_tells_every_item_of_those_with_several_once() -> None:
    given = ratings()
    pooling = Pooling(given, N_ITEMS, SMALL, CPU)
    steps = list(pooling.steps())
    assert len(steps) == pooling.steps_per_epoch > 1
    lengths = np.diff(given.starts)
    np.testing.assert_array_equal(pooling.items.numpy(), given.columns[np.repeat(lengths, lengths) > 1])
    places = torch.cat([places for places, _ in steps])
    np.testing.assert_array_equal(np.sort(places.numpy()), np.arange(len(pooling.items)))
    assert max(len(places) for places, _ in steps) <= SMALL.batch_size + lengths.max()


def test_a_person_may_have_more_items_than_a_step() -> None:
    starts, items = np.array([0, 100, 102]), np.concatenate([np.arange(100), [3, 4]])
    pooling = Pooling(Ratings(starts, items, np.ones(102, np.float32)), 100, SMALL, CPU)
    steps = [len(places) for places, _ in pooling.steps()]
    assert min(steps) > 0
    assert sum(steps) == 102
    assert np.isfinite(pooling.epoch())


def test_an_item_that_nobody_has_beside_another_points_nowhere() -> None:
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


def test_an_old_history_points_where_the_same_of_today_does() -> None:
    directions, lengths = np.eye(2, dtype=np.float32), np.ones(2, np.float32)
    pooled = Pooled(directions, lengths, np.ones(3, np.float32), np.full(3, 5, np.float32))
    new, old = (
        Histories(np.array([0, 2]), np.array([0, 1], np.int32), np.zeros(2, np.int8), np.array(ages, np.float32))
        for ages in ([5, 0], [405, 400])
    )
    np.testing.assert_allclose(pooled.scores(old), pooled.scores(new), rtol=1e-6)


def test_nothing_to_learn_from_leaves_nothing_learned() -> None:
    alone = Pooling(Ratings(np.array([0, 1, 1]), np.array([3]), np.ones(1, np.float32)), N_ITEMS, SMALL, CPU)
    assert alone.epoch() == 0.0
    assert not alone.vectors_VD.any()
