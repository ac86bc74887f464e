"""The sequence transformer: causal, so that one pass over a history predicts each of its events from those before it.

It departs from SASRec (Kang, McAuley, ICDM 2018) in the loss, cross-entropy over the catalogue (Klenitskiy, Vasilev,
RecSys 2023), of cosines over a temperature; in positions, a learned bias per distance, so that a history has no
beginning; in moving averages beside attention (the low-pass of Shin et al., "An Attentive Inductive Bias for Sequential
Recommendation beyond the Self-Attention", AAAI 2024, made causal); in decoupled weight decay, strong; and in attributes
summed into the items' embeddings.

A step learns from histories end to end on a tape (``tapes``); all tapes are of one length, so that a GPU records a step
once and then repeats it.

Shapes: T events of a tape, N people, D width, V items, C candidates of a step.
"""

import copy
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from features.histories import KINDS, Attributes, EventWeights, Histories, Log
from features.home import home
from serving.sequence import Sequence
from training import parallel
from training.device import Device
from training.recommend import cross_entropy, onnx_graph
from training.recommend.cross_entropy import Negatives, of_cosines
from training.recommend.encoder import Encoder
from training.recommend.sequence import SequenceConfig
from training.recommend.tapes import laid, stretches
from training.schedule import cosine

PAIRS_AT_ONCE = 2**23
"""So many events within sight of one another are read at once where nothing is learned."""
N_HELD = 2000
"""People whose last event is held out where patience is asked for."""
SECONDS_BETWEEN_SAVES = 60


def fit(log: Log, config: SequenceConfig, events: EventWeights, device: Device) -> Sequence:
    """Fit ``n_members`` models of consecutive seeds and put them side by side."""
    seeds = range(config.seed, config.seed + config.n_members)
    return exported([parallel.together(fit_member, log, config, events, device, seed) for seed in seeds], config)


def exported(members: "list[Transformer]", config: SequenceConfig) -> Sequence:
    """Fitted models side by side as what answers."""

    def side_by_side(tensors: list[Tensor]) -> NDArray[np.float32]:
        return torch.cat([tensor.detach().cpu() for tensor in tensors], 1).numpy()

    return Sequence(
        inputs=side_by_side([member.item_table() for member in members]),
        kinds=side_by_side([member.kinds for member in members]),
        directions=side_by_side([member.directions() for member in members]) / config.temperature,
        encoder=onnx_graph.written([member.encoder.cpu() for member in members]),
        max_length=config.max_length,
    )


class Transformer(nn.Module):
    """Embeddings of items, attributes and kinds of events, and the encoder over them.

    attributes : of the items; None: they are not used
    """

    def __init__(self, n_items: int, attributes: Attributes | None, config: SequenceConfig) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.randn(n_items, config.width) * 0.02)
        self.kinds = nn.Parameter(torch.zeros(len(KINDS), config.width))
        self.has_attributes = attributes is not None
        if attributes is not None:
            starts = torch.from_numpy(np.searchsorted(attributes.items, np.arange(n_items)))
            self.register_buffer("values_of_items", torch.from_numpy(attributes.values.astype(np.int64)), False)
            self.register_buffer("starts_of_items", starts, persistent=False)
            self.values = nn.Parameter(torch.randn(len(attributes.names), config.width) * 0.02)
        self.encoder = Encoder(config)

    def item_table(self) -> Tensor:
        """The embedding of each item, with those of its attributes, shape (V, D)."""
        if not self.has_attributes:
            return self.items
        return self.items + functional.embedding_bag(
            self.values_of_items, self.values, self.starts_of_items, mode="sum"
        )

    def directions(self) -> Tensor:
        """Unit vectors of the items, shape (V, D); shorter for those that nobody touched.

        They have no part of their own, only their attributes': it counts as long as other items' and pointing nowhere,
        for what is known of them in part is not to outrank what is known.
        """
        table_VD, own_V = self.item_table(), self.items.square().sum(1)
        is_untouched_V = own_V == 0
        missing_V = is_untouched_V * (own_V.sum() / (~is_untouched_V).sum().clamp(min=1))
        return table_VD / (table_VD.square().sum(1) + missing_V).sqrt().clamp(min=1e-12)[:, None]


# Training


class Trainer:
    """One model, its optimiser and the events it predicts, all on one device.

    A run that was interrupted goes on from its last whole epoch when it is started again with the same data and
    configuration. Of several processes each takes its tape of every step.
    """

    def __init__(self, log: Log, config: SequenceConfig, events: EventWeights, device: Device, seed: int) -> None:
        self.config, self.events, self.seed = config, events, seed
        self.device = torch.device(device.name)
        torch.manual_seed(seed)
        attributes = log.attributes if config.attributes and len(log.attributes.items) else None
        self.model = Transformer(log.n_items, attributes, config).to(self.device)
        is_repeatable = device.name == "cuda" and not config.n_negatives and parallel.n_processes() == 1
        self.recorded = Recorded() if is_repeatable else None
        self.optimizer = self._optimizer()
        self.histories = log.histories
        self.items = torch.from_numpy(log.histories.items.astype(np.int64)).to(self.device)
        self.kinds = torch.from_numpy(log.histories.kinds.astype(np.int64)).to(self.device)
        self.weights = events.weights[log.histories.kinds]
        self.n_predicted = int(np.maximum(log.histories.lengths - 1, 0).sum())
        self.steps_per_epoch = max(1, round(self.n_predicted / config.batch_size))
        is_told = self.weights > 0
        is_told[log.histories.starts[:-1][log.histories.lengths > 0]] = False
        told = self.items[torch.from_numpy(is_told).to(self.device)]
        self.touched = torch.unique(self.items)
        self.negatives = Negatives(self.touched, told, config.n_negatives)
        untouched = torch.ones(log.n_items, dtype=torch.bool, device=self.device)
        untouched[self.touched] = False
        self.model.items.data[untouched] = 0
        self.step, self.n_epochs = 0, 0
        self.best: dict[str, Any] = {"quality": -1.0, "n_epochs": 0, "model": {}}

    def epoch(self) -> float:
        """One pass over the histories, whose randomness depends on its number alone; the mean loss per event."""
        number = self.seed * 100_003 + self.n_epochs + 1
        torch.manual_seed(number * parallel.n_processes() + parallel.rank())
        self.model.train()
        losses = [self.update(*tape) for tape in self.tapes(np.random.default_rng([self.seed, self.n_epochs]))]
        self.n_epochs += 1
        return torch.stack(losses).mean().item() if losses else 0.0

    def tapes(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each step's tape of this process, in random order: places and what ``update`` takes with them."""
        if not self.n_predicted:
            return
        starts, lengths = stretches(self.histories, self.config.max_length, rng)
        order, n_processes = rng.permutation(len(starts)), parallel.n_processes()
        n_tapes, block = self.steps_per_epoch * n_processes, self.model.encoder.block_size
        tapes = laid(starts[order], lengths[order], n_tapes, block)
        weights = np.where(tapes.is_event, self.weights[tapes.places + 1], np.float32(0))
        weights = weights.reshape(self.steps_per_epoch, n_processes, -1)
        weights /= weights.sum((1, 2), keepdims=True).clip(min=np.finfo(np.float32).tiny)
        mine = slice(parallel.rank(), None, n_processes)
        arrays = tapes.places[mine], tapes.n_before[mine], weights[:, parallel.rank()]
        yield from zip(*map(self._on_device, arrays), strict=True)

    def update(self, places_T: Tensor, n_before_T: Tensor, weights_T: Tensor) -> Tensor:
        """One step towards what follows the events of a tape; the loss before it.

        places_T, n_before_T : of each event among the log's, and how many before it are looked back at, int64
        weights_T : what the event after it counts, float32; all processes' add up to 1, a blank's is 0
        """
        step_size = self.config.learning_rate * cosine(self.step, self.steps_per_epoch * self.config.n_epochs)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(step_size)
        self.step += 1
        if self.recorded is not None:
            return self.recorded(self._learned, places_T, n_before_T, weights_T)
        return self._learned(places_T, n_before_T, weights_T)

    def asked(self, histories: Histories, wanted: NDArray[np.int32]) -> "Asked":
        """What ``ndcg`` asks: of each history, which item follows; of shape (n_users,)."""
        recent = histories.last(self.config.max_length)
        block = self.model.encoder.block_size
        tapes = laid(recent.starts[:-1], recent.lengths, -(-2 * block * len(recent) // PAIRS_AT_ONCE), block)
        is_end = tapes.is_event & (np.roll(tapes.n_before, -1, 1) == 0)
        read = recent.items[tapes.places], recent.kinds[tapes.places], tapes.n_before, is_end
        on_device = [tuple(map(self._on_device, tape)) for tape in zip(*read, strict=True)]
        return Asked(on_device, self._on_device(wanted[recent.lengths > 0]), histories.n_users)

    @torch.no_grad()
    def ndcg(self, asked: "Asked") -> float:
        """Mean NDCG@10 over the whole catalogue of the one item that each person wanted next."""
        self.model.eval()
        table_VD, items_VD = self.model.item_table(), self.model.directions()
        states = [self._states(items, kinds, before, table_VD)[is_end] for items, kinds, before, is_end in asked.tapes]
        n_rows = cross_entropy.LOGITS_AT_ONCE[self.device.type] // len(items_VD) + 1
        gain = torch.zeros((), device=self.device)
        for states_ND, wanted_N in zip(torch.cat(states).split(n_rows), asked.wanted.split(n_rows), strict=True):
            scores_NV = states_ND @ items_VD.T
            places_N = (scores_NV >= scores_NV.gather(1, wanted_N[:, None])).sum(1)
            gain += ((places_N <= 10) / (places_N + 1).log2()).sum()
        return gain.item() / asked.n_users

    def remember(self, quality: float) -> None:
        """Keep the model as it is if it is the best so far."""
        if quality > self.best["quality"]:
            model = copy.deepcopy(self.model.state_dict())
            self.best = {"quality": quality, "n_epochs": self.n_epochs, "model": model}

    def is_worn_out(self) -> bool:
        """Whether ``patience`` epochs have passed since the best one."""
        return bool(self.n_epochs - self.best["n_epochs"] >= self.config.patience)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "n_epochs": self.n_epochs,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        own_groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict(state["optimizer"] | {"param_groups": own_groups})
        self.step, self.n_epochs, self.best = state["step"], state["n_epochs"], state["best"]

    def _learned(self, places_T: Tensor, n_before_T: Tensor, weights_T: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss = self._loss(places_T, n_before_T, weights_T)
        loss.backward()
        parallel.add_up([loss.detach(), *gradients(self.model)])
        self.optimizer.step()
        return loss.detach()

    def _loss(self, places_T: Tensor, n_before_T: Tensor, weights_T: Tensor) -> Tensor:
        table_VD, targets_T = self.model.item_table(), self.items[places_T + 1]
        states_TD = self._states(self.items[places_T], self.kinds[places_T], n_before_T, table_VD)
        if self.config.n_negatives:
            is_told_T = weights_T > 0
            states_TD, targets_T, weights_T = states_TD[is_told_T], targets_T[is_told_T], weights_T[is_told_T]
        return of_cosines(states_TD, targets_T, weights_T, table_VD, self.negatives, self.config.temperature)

    def _states(self, items_T: Tensor, kinds_T: Tensor, n_before_T: Tensor, table_VD: Tensor) -> Tensor:
        """What the encoder makes of a tape, float32, shape (T, D)."""
        is_reduced = cross_entropy.reduced_precision(self.device) == torch.bfloat16
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_reduced and self.model.training):
            read_TD = functional.embedding(items_T, table_VD) + functional.embedding(kinds_T, self.model.kinds)
            states_TD: Tensor = self.model.encoder(read_TD, n_before_T)
        return states_TD.float()

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        values = torch.from_numpy(array).to(self.device)
        return values.long() if values.dtype in (torch.int8, torch.int32) else values

    def _optimizer(self) -> torch.optim.Optimizer:
        matrices = [p for name, p in self.model.named_parameters() if p.dim() > 1 and "bias" not in name]
        others = [p for name, p in self.model.named_parameters() if p.dim() <= 1 or "bias" in name]
        return torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=torch.zeros((), device=self.device),
            fused=True,
            capturable=self.recorded is not None,
        )


class Recorded:
    """Calls a function of tensors of one shape; a GPU records its kernels at the fourth call and then repeats them."""

    N_EAGER = 3
    """Calls in which what is made once (the optimiser's state, the libraries' handles) is made."""

    def __init__(self) -> None:
        self.n_calls = 0
        self.inputs: list[Tensor] = []

    def __call__(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        self.n_calls += 1
        if self.n_calls <= self.N_EAGER:
            return function(*inputs)
        if not self.inputs:
            self.inputs = [torch.empty_like(given) for given in inputs]
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.output = function(*self.inputs)
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.output.clone()


class Asked(NamedTuple):
    """Histories on tapes, and what is wanted after them, on a trainer's device.

    tapes : of each tape its items, kinds and ``n_before``, int64, and where histories end, bool, all of shape (T,)
    wanted : int64, of the people with a history, shape (N,)
    n_users : of all people
    """

    tapes: list[tuple[Tensor, ...]]
    wanted: Tensor
    n_users: int


def fit_member(log: Log, config: SequenceConfig, events: EventWeights, device: Device, seed: int) -> Transformer:
    """One model, fitted; with ``patience``, as it was after the epoch that ranked held-out events best."""
    log, held = hold_out(log, np.random.default_rng(seed)) if config.patience else (log, None)
    trainer = Trainer(log, config, events, device, seed)
    asked = held and trainer.asked(*held)
    checkpoint = Checkpoint(trainer, log)
    while trainer.n_epochs < config.n_epochs and (asked is None or not trainer.is_worn_out()):
        trainer.epoch()
        if asked is not None:
            trainer.remember(parallel.from_first(lambda: trainer.ndcg(asked)))
        checkpoint.save()
    checkpoint.remove()
    if asked is not None:
        trainer.model.load_state_dict(trainer.best["model"])
    return trainer.model.eval()


def hold_out(log: Log, rng: np.random.Generator) -> tuple[Log, tuple[Histories, NDArray[np.int32]] | None]:
    """The log without the last event of some people, and these people's other events with the item of the last.

    The whole log and None where nobody has the three events that it takes.
    """
    people = np.sort(rng.permutation(np.flatnonzero(log.histories.lengths >= 3))[:N_HELD])
    if not len(people):
        return log, None
    last = log.histories.starts[people + 1] - 1
    kept = np.ones(len(log.histories), bool)
    kept[last] = False
    left = log.histories.where(kept)
    return replace(log, histories=left, visits=log.visits[kept]), (left.take(people), log.histories.items[last])


class Checkpoint:
    """Where an unfinished run is kept, named for its data and configuration; found there, it is gone on with."""

    def __init__(self, trainer: Trainer, log: Log) -> None:
        settings = trainer.config.model_dump_json(), trainer.seed, trainer.events, log.n_items
        content = hashlib.sha256(str(settings).encode())
        histories, attributes = log.histories, log.attributes
        for array in (histories.starts, histories.items, histories.kinds, attributes.items, attributes.values):
            content.update(array.tobytes())
        self.path = home() / "checkpoints" / f"sequence-{content.hexdigest()[:16]}.pt"
        self.trainer = trainer
        self.saved_at = time.monotonic()
        if (state := parallel.from_first(self._found)) is not None:
            trainer.load_state_dict(state)

    def save(self) -> None:
        """Write the run's state, at most once in ``SECONDS_BETWEEN_SAVES``."""
        if parallel.rank() or time.monotonic() - self.saved_at < SECONDS_BETWEEN_SAVES:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        staged = self.path.with_suffix(".staged")
        torch.save(self.trainer.state_dict(), staged)
        staged.replace(self.path)
        self.saved_at = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _found(self) -> dict[str, Any] | None:
        return torch.load(self.path, weights_only=True, map_location="cpu") if self.path.is_file() else None


def gradients(model: nn.Module) -> list[Tensor]:
    """The gradient of each parameter; zero where this process has nothing to learn from."""
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
