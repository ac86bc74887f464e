"""The sequence transformer learns an order of things, exactly as stated, and is exported as it was fitted."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from features.histories import NO_ATTRIBUTES, Attributes, EventWeights, Histories, Log
from serving import sequence, tiers
from serving.artifact import Artifact, Draft
from serving.sequence import Sequence
from training.device import choose
from training.recommend import cross_entropy, onnx_graph, transformer
from training.recommend.cross_entropy import CrossEntropy, Negatives
from training.recommend.encoder import Encoder
from training.recommend.sequence import SequenceConfig, fit
from training.recommend.transformer import Trainer

N_ITEMS = 12
EVENTS = EventWeights(np.array([0.1, 0.5, 1.0], np.float32), np.full(3, 90.0, np.float32))
CPU = choose("cpu")
SMALL = SequenceConfig(width=16, n_heads=2, max_length=8, n_epochs=30, batch_size=128, dropout=0.1, weight_decay=0.01)


def counting_log(n_users: int = 60, attributes: Attributes = NO_ATTRIBUTES) -> Log:
    """People who go through the items in a circle, each from another start."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 20, n_users)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    first = rng.integers(0, N_ITEMS, n_users)
    steps = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    items = ((np.repeat(first, lengths) + steps) % N_ITEMS).astype(np.int32)
    n = len(items)
    histories = Histories(starts, items, np.full(n, 2, np.int8), np.zeros(n, np.float32))
    names = [f"i{item:02}" for item in range(N_ITEMS)]
    return Log([f"u{user:03}" for user in range(n_users)], names, histories, np.arange(n, dtype=np.int32), attributes)


@pytest.fixture(scope="module")
def fitted() -> Sequence:
    return fit(counting_log(), SMALL, EVENTS, CPU)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path))
    return tmp_path


def test_it_learns_what_comes_next(fitted: Sequence) -> None:
    asked = [Histories.of([item, (item + 1) % N_ITEMS]) for item in range(N_ITEMS)]
    expected = [(item + 2) % N_ITEMS for item in range(N_ITEMS)]
    assert [int(fitted.scores(history).argmax()) for history in asked] == expected


def test_a_batch_is_scored_as_each_alone(fitted: Sequence) -> None:
    histories = counting_log().histories
    together = fitted.scores(histories)
    alone = np.concatenate([fitted.scores(histories.take(np.array([user]))) for user in range(histories.n_users)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_what_is_loaded_scores_as_what_was_fitted(fitted: Sequence, tmp_path: Path) -> None:
    draft = Draft(tmp_path / "artifact")
    tiers.save(draft, "sequence", fitted)
    loaded = tiers.load(Artifact(draft.folder), "sequence", Sequence)
    histories = counting_log().histories
    np.testing.assert_array_equal(loaded.scores(histories), fitted.scores(histories))


@pytest.mark.parametrize("length", [0, 1, 9, 100_000])
def test_histories_of_any_length_are_scored(fitted: Sequence, length: int) -> None:
    scores = fitted.scores(Histories.of(np.arange(length) % N_ITEMS))
    assert scores.shape == (1, N_ITEMS)
    assert np.isfinite(scores).all()
    assert length or np.ptp(scores) == 0


def test_only_the_last_events_are_read(fitted: Sequence) -> None:
    recent = list(range(SMALL.max_length))
    np.testing.assert_array_equal(fitted.scores(Histories.of([7, 3, *recent])), fitted.scores(Histories.of(recent)))


def test_a_catalogue_of_one_item(home: Path) -> None:
    histories = Histories(np.array([0, 2]), np.zeros(2, np.int32), np.zeros(2, np.int8), np.zeros(2, np.float32))
    log = Log(["u"], ["i"], histories, np.zeros(2, np.int32), NO_ATTRIBUTES)
    assert fit(log, SMALL, EVENTS, CPU).scores(histories).shape == (1, 1)


def test_nothing_to_predict_leaves_the_start_values() -> None:
    log = counting_log()
    firsts = Log(log.user_ids, log.item_ids, log.histories.last(1), log.visits[:60], NO_ATTRIBUTES)
    assert np.isfinite(fit(firsts, SMALL, EVENTS, CPU).scores(log.histories)).all()


def test_losses_of_three_steps_are_as_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, for processors differ in whether they have bfloat16."""
    monkeypatch.setattr(cross_entropy, "reduced_precision", lambda _: torch.float32)
    trainer = Trainer(counting_log(), SMALL, EVENTS, CPU, seed=0)
    tape = next(trainer.tapes(np.random.default_rng(0)))
    trainer.model.eval()
    losses = [trainer.update(*tape).item() for _ in range(3)]
    assert losses == pytest.approx(GOLDEN, rel=1e-4)


GOLDEN = [12.213998794555664, 10.956802368164062, 8.519901275634766]


def test_histories_are_encoded_alike_in_many_batches_and_in_one(
    fitted: Sequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = counting_log().histories
    whole = fitted.encoded(histories)
    monkeypatch.setattr(sequence, "EVENTS_AT_ONCE", 20)
    assert len(list(sequence.batches(histories))) > 10
    np.testing.assert_allclose(fitted.encoded(histories), whole, atol=1e-6)


def test_the_same_seed_gives_the_same_numbers(fitted: Sequence) -> None:
    again = fit(counting_log(), SMALL, EVENTS, CPU)
    np.testing.assert_array_equal(again.inputs, fitted.inputs)
    assert again.encoder == fitted.encoder


def test_an_interrupted_run_ends_as_if_it_had_not_been(
    fitted: Sequence, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "SECONDS_BETWEEN_SAVES", 0)
    real, epochs = Trainer.epoch, []

    def interrupted(trainer: Trainer) -> float:
        epochs.append(trainer.n_epochs)
        if len(epochs) == 10:
            raise KeyboardInterrupt
        return real(trainer)

    monkeypatch.setattr(Trainer, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(counting_log(), SMALL, EVENTS, CPU)
    assert len(list((home / "checkpoints").iterdir())) == 1
    resumed = fit(counting_log(), SMALL, EVENTS, CPU)
    assert epochs == [*range(10), *range(9, SMALL.n_epochs)]
    np.testing.assert_array_equal(resumed.inputs, fitted.inputs)
    assert not list((home / "checkpoints").iterdir())


def test_patience_ends_a_run_that_no_longer_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    qualities = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    n_asked = []
    monkeypatch.setattr(Trainer, "ndcg", lambda *_: n_asked.append(1) or next(qualities))
    fit(counting_log(), SMALL.model_copy(update={"patience": 2}), EVENTS, CPU)
    assert len(n_asked) == 4


def test_patience_without_anybody_to_hold_out_changes_nothing() -> None:
    log = counting_log()
    short = log.histories.last(2)
    log = replace(log, histories=short, visits=log.visits[: len(short)])
    patient = fit(log, SMALL.model_copy(update={"patience": SMALL.n_epochs}), EVENTS, CPU)
    np.testing.assert_array_equal(patient.directions, fit(log, SMALL, EVENTS, CPU).directions)


def test_held_out_events_are_ranked_as_they_are_scored(fitted: Sequence) -> None:
    config = SMALL.model_copy(update={"patience": SMALL.n_epochs})
    log, (histories, wanted) = transformer.hold_out(counting_log(), np.random.default_rng(0))
    assert histories.n_users == len(wanted) > 0
    assert len(log.histories) == len(counting_log().histories) - len(wanted)
    trainer = Trainer(log, config, EVENTS, CPU, seed=0)
    asked = trainer.asked(histories, wanted)
    before = trainer.ndcg(asked)
    for _ in range(config.n_epochs):
        trainer.epoch()
    assert trainer.ndcg(asked) > max(before, 0.95)
    scores = transformer.exported([trainer.model], config).scores(histories)
    places = (scores >= scores[np.arange(len(wanted)), wanted][:, None]).sum(1)
    gains = np.where(places <= 10, 1 / np.log2(places + 1), 0)
    assert trainer.ndcg(asked) == pytest.approx(gains.mean(), abs=1e-3)


def test_members_are_scored_side_by_side() -> None:
    short = SMALL.model_copy(update={"n_epochs": 2})
    both = fit(counting_log(), short.model_copy(update={"n_members": 2}), EVENTS, CPU)
    one, other = (fit(counting_log(), short.model_copy(update={"seed": seed}), EVENTS, CPU) for seed in (0, 1))
    histories = counting_log().histories
    np.testing.assert_allclose(both.scores(histories), one.scores(histories) + other.scores(histories), atol=1e-4)


def test_an_item_that_nobody_touched_is_placed_by_its_attributes() -> None:
    """Item 11 is never touched; it shares its attribute with item 4, which comes after 3."""
    items = np.arange(N_ITEMS, dtype=np.int32)
    alike = Attributes(items, np.where(items == 11, 4, items).astype(np.int32), [f"c={item}" for item in range(11)])
    log = counting_log(attributes=alike)
    touched = log.histories.where(log.histories.items != 11)
    log = Log(log.user_ids, log.item_ids, touched, log.visits[: len(touched)], alike)
    order = np.argsort(-fit(log, SMALL, EVENTS, CPU).scores(Histories.of([2, 3]))[0]).tolist()
    assert order[0] == 4
    assert order.index(11) < 4


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("drawn", [False, True])
def test_cross_entropy_is_the_formula_and_its_derivative(
    drawn: bool, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "reduced_precision", lambda _: torch.float32)
    monkeypatch.setitem(cross_entropy.LOGITS_AT_ONCE, "cpu", 20)
    torch.manual_seed(0)
    states, items = torch.randn(7, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    targets, weights = torch.arange(7) % 5, torch.rand(7)
    inclusion = torch.rand(9) * 0.8 + 0.1 if drawn else None
    groups = torch.tensor([0, 0, 1, 3, 3, 3, 4])
    loss = CrossEntropy.apply(states, items, targets, weights, inclusion, groups if grouped else None)
    found = torch.autograd.grad(loss, [states, items])

    logits = states @ items.T
    own = functional.one_hot(targets, 9)
    shares = torch.ones(7, 9) if inclusion is None else inclusion.expand(7, 9).clone()
    for group in groups.unique() if grouped else ():
        shares[np.ix_(groups == group, targets[groups == group].unique())] = torch.inf
    shares = torch.where(own == 1, 1.0, shares)
    expected = ((torch.exp(logits) / shares).sum(1).log() - (logits * own).sum(1)) @ weights
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, [states, items]))


def test_drawn_items_stand_for_the_whole_catalogue() -> None:
    """Over many draws the mean of the estimated normaliser is that of the whole catalogue."""
    torch.manual_seed(0)
    told = torch.tensor([0, 0, 0, 1, 2, 2])
    negatives = Negatives(torch.arange(N_ITEMS), told, n_drawn=4)
    values, estimates = torch.rand(N_ITEMS), []
    for _ in range(3000):
        targets = told[torch.randint(len(told), (3,))]
        candidates, places, inclusion = negatives.candidates(targets)
        assert torch.equal(candidates[places], targets)
        estimates.append((values[candidates] / inclusion).sum())
    assert torch.stack(estimates).mean() == pytest.approx(values.sum().item(), rel=0.03)


@pytest.mark.parametrize("moving_average", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("max_length", [1, 8, 17])
def test_the_graph_computes_what_the_encoders_do(max_length: int, moving_average: float) -> None:
    import onnxruntime

    config = SMALL.model_copy(update={"max_length": max_length, "moving_average": moving_average})
    encoders = [Encoder(config).eval() for _ in range(2)]
    for encoder in encoders:
        for block in encoder.blocks:
            torch.nn.init.normal_(block.distance_bias_HL)
            torch.nn.init.normal_(block.average_bias_GS)
    session = onnxruntime.InferenceSession(onnx_graph.written(encoders))
    block_size = encoders[0].block_size
    for length in {1, max_length}:
        events, last = torch.randn(length, length, 32), torch.arange(length)
        found = session.run(["direction"], {"events": events.numpy(), "last": last.numpy()})[0]
        tape = functional.pad(events, (0, 0, 0, block_size - length)).flatten(0, 1)
        n_before = torch.arange(len(tape)) % block_size
        states = [
            encoder(x, n_before)[last * (block_size + 1)] for encoder, x in zip(encoders, tape.chunk(2, 1), strict=True)
        ]
        expected = torch.cat([functional.normalize(state, dim=1) for state in states], 1)
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_recorded_step_learns_what_a_step_does() -> None:
    config = SMALL.model_copy(update={"dropout": 0.0, "n_epochs": 3})
    plain, recorded = (Trainer(counting_log(), config, EVENTS, choose("cuda"), seed=0) for _ in range(2))
    plain.recorded = None
    expected, found = ([trainer.epoch() for _ in range(config.n_epochs)] for trainer in (plain, recorded))
    assert found == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("n_processes", [1, 3])
def test_the_tapes_of_a_step_weigh_one_and_tell_every_target_once(
    n_processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(counting_log(), SMALL, EVENTS, CPU, seed=0)
    monkeypatch.setattr(transformer.parallel, "n_processes", lambda: n_processes)
    by_process = []
    for rank in range(n_processes):
        monkeypatch.setattr(transformer.parallel, "rank", lambda rank=rank: rank)
        by_process.append(list(trainer.tapes(np.random.default_rng(0))))
    assert {len(tapes) for tapes in by_process} == {trainer.steps_per_epoch}
    for step in zip(*by_process, strict=True):
        assert sum(weights.sum().item() for _, _, weights in step) == pytest.approx(1)
    told = [places[weights > 0] + 1 for tapes in by_process for places, _, weights in tapes]
    histories = trainer.histories
    expected = np.setdiff1d(np.arange(len(histories)), histories.starts[:-1])
    np.testing.assert_array_equal(np.sort(torch.cat(told).numpy()), expected)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 10 is no multiple of n_heads 4"):
        SequenceConfig(width=10, n_heads=4)


def test_what_nobody_touched_is_not_ranked_above_what_is_known(fitted: Sequence) -> None:
    n_new, colours = 4, np.zeros(N_ITEMS, np.int32)
    attributes = Attributes(np.arange(N_ITEMS, dtype=np.int32), colours, ["any"])
    log = counting_log(attributes=attributes)
    kept = log.histories.items < N_ITEMS - n_new
    log = replace(log, histories=log.histories.where(kept), visits=log.visits[kept])
    lengths = np.linalg.norm(fit(log, SMALL, EVENTS, CPU).directions, axis=1) * SMALL.temperature
    np.testing.assert_allclose(lengths[:-n_new], 1, rtol=1e-5)
    assert (lengths[-n_new:] < 0.9).all()


SHARED_FIT = """
import pickle, sys
from pathlib import Path
import torch
from training import parallel
from training.recommend import cross_entropy, transformer

cross_entropy.reduced_precision = lambda _: torch.float32

def main():
    model = parallel.together(transformer.fit_member, *pickle.load(open(sys.argv[1], "rb")))
    pickle.dump(model.item_table().detach().numpy(), open(sys.argv[2], "wb"))

parallel.run(main)
threads = [thread.read_text().strip() for thread in Path("/proc/self/task").glob("*/comm")]
assert not [thread for thread in threads if "gloo" in thread], threads
"""


@pytest.mark.parametrize("batch_size", [128, 4])
def test_processes_that_share_the_steps_fit_what_one_fits(
    tmp_path: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "reduced_precision", lambda _: torch.float32)
    config = SMALL.model_copy(update={"dropout": 0.0, "n_epochs": 2, "batch_size": batch_size, "patience": 2})
    arguments = counting_log(8), config, EVENTS, CPU, 3
    given, script, fitted = tmp_path / "given.pickle", tmp_path / "fit.py", tmp_path / "fitted.pickle"
    given.write_bytes(pickle.dumps(arguments))
    script.write_text(SHARED_FIT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    subprocess.run([*torchrun, script, given, fitted], check=True, env=environment, timeout=120)
    alone = transformer.fit_member(*arguments).item_table().detach().numpy()
    np.testing.assert_allclose(pickle.loads(fitted.read_bytes()), alone, atol=1e-4)
