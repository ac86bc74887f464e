"""The sequence transformer: causal, so that one pass over a history predicts each of its events from those before it.

It departs from SASRec (Kang, McAuley, ICDM 2018) in the loss, cross-entropy over the catalogue (Klenitskiy, Vasilev,
RecSys 2023), of cosines over a temperature; in positions, a learned bias per distance, so that a history has no
beginning; in decoupled weight decay, strong; and in attributes summed into the items' embeddings.

Shapes: N histories, L events, D width, H heads, V items, R predicted events, C candidates of a step.
"""

import copy
import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from features.histories import KINDS, EventWeights, Histories, Log, rectangles
from features.home import home
from serving.sequence import Sequence
from training import parallel
from training.device import Device
from training.recommend import onnx_graph
from training.recommend.sequence import SequenceConfig

ROWS_AT_ONCE = 512
"""Logits of so many rows are held at once: few enough to stay in the cache."""
WARM_UP = 0.03
"""Share of the steps in which the step size rises."""
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


class Block(nn.Module):
    """Causal attention with a bias per distance and a feed-forward layer, each normalised after its residual."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        width = config.width
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.distance_bias_HL = nn.Parameter(torch.zeros(config.n_heads, config.max_length))
        place = torch.arange(config.max_length)
        distance = place[:, None] - place
        self.register_buffer("distance_LL", distance.clamp(min=0), persistent=False)
        self.register_buffer("future_LL", torch.where(distance < 0, -torch.inf, 0.0), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x_NLD: Tensor) -> Tensor:
        x_NLD = self.norm_attention(x_NLD + self._dropped(self._attended(x_NLD)))
        fed_NLD = self.narrow(functional.gelu(self.wide(x_NLD)))
        return self.norm_feed_forward(x_NLD + self._dropped(fed_NLD))

    def _attended(self, x_NLD: Tensor) -> Tensor:
        n, length, width = x_NLD.shape
        split = self.queries_keys_values(x_NLD).view(n, length, 3, self.n_heads, width // self.n_heads)
        queries_NHLE, keys_NHLE, values_NHLE = split.permute(2, 0, 3, 1, 4)
        scale = 1 / math.sqrt(queries_NHLE.shape[-1])
        products_NHLL = (queries_NHLE @ keys_NHLE.transpose(2, 3)).float()
        weights_NHLL = (products_NHLL * scale + self.bias_HLL(length)).softmax(-1)
        heard_NHLE = weights_NHLL.to(values_NHLE.dtype) @ values_NHLE
        return self.mixed(heard_NHLE.transpose(1, 2).reshape(n, length, width))

    def bias_HLL(self, length: int | None = None) -> Tensor:
        """What is added to the attention of each place to each earlier one; -inf to later ones."""
        return self.distance_bias_HL[:, self.distance_LL[:length, :length]] + self.future_LL[:length, :length]

    def _dropped(self, x: Tensor) -> Tensor:
        return dropped(x, self.dropout) if self.training else x


class Encoder(nn.Module):
    """From what is read at each event to the direction of the event that follows it."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.norm = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))

    def forward(self, events_NLD: Tensor) -> Tensor:
        x_NLD = self.norm(events_NLD)
        if self.training:
            x_NLD = dropped(x_NLD, self.dropout)
        for block in self.blocks:
            x_NLD = block(x_NLD)
        return x_NLD


class Transformer(nn.Module):
    """Embeddings of items, attributes and kinds of events, and the encoder over them.

    attributes : which attribute values items have, sparse float32 (n_items, n_values); None: they are not used
    """

    def __init__(self, n_items: int, attributes: Tensor | None, config: SequenceConfig) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.randn(n_items, config.width) * 0.02)
        self.kinds = nn.Parameter(torch.zeros(len(KINDS), config.width))
        self.attributes = attributes
        if attributes is not None:
            self.values = nn.Parameter(torch.randn(attributes.shape[1], config.width) * 0.02)
        self.encoder = Encoder(config)

    def item_table(self) -> Tensor:
        """The embedding of each item, with those of its attributes, shape (V, D)."""
        return self.items if self.attributes is None else self.items + torch.sparse.mm(self.attributes, self.values)

    def directions(self) -> Tensor:
        """Unit vectors of the items, shape (V, D); shorter for those that nobody touched.

        They have no part of their own, only their attributes': it counts as long as other items' and pointing nowhere,
        for what is known of them in part is not to outrank what is known.
        """
        table_VD, own_V = self.item_table(), self.items.square().sum(1)
        is_untouched_V = own_V == 0
        missing_V = is_untouched_V * (own_V.sum() / (~is_untouched_V).sum().clamp(min=1))
        return table_VD / (table_VD.square().sum(1) + missing_V).sqrt().clamp(min=1e-12)[:, None]


def dropped(x: Tensor, share: float) -> Tensor:
    """Dropout from random bytes, eight from one draw: the share is rounded to 1/256."""
    threshold = round(share * 256)
    if not threshold:
        return x
    draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    kept = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= threshold
    return x * kept * (256 / (256 - threshold))


class CrossEntropy(torch.autograd.Function):
    """``sum_r weight_r (log sum_c exp(s_rc) / inclusion_c - s_rt)``, whose gradient is formed beside the value.

    The logits ``s`` of a few rows at a time live in one buffer that becomes their gradient; they are bounded by the
    temperature, so no maximum is subtracted. ``inclusion`` is the probability with which a candidate was drawn
    (Horvitz, Thompson, 1952), None for the whole catalogue; a row's own target is always there and counts in full.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        states_RD: Tensor,
        items_CD: Tensor,
        targets_R: Tensor,
        weights_R: Tensor,
        inclusion_C: Tensor | None,
    ) -> Tensor:
        dtype = reduced_precision(states_RD.device)
        states, items = states_RD.to(dtype), items_CD.to(dtype)
        state_gradient, item_gradient = torch.empty_like(states_RD), torch.zeros_like(items_CD)
        of_targets_R = (states_RD * items_CD[targets_R]).sum(1)
        loss = states_RD.new_zeros(())
        for start in range(0, len(states), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            own = (torch.arange(len(targets_R[rows]), device=states.device), targets_R[rows])
            p = (states[rows] @ items.T).exp_()
            if inclusion_C is not None:
                own_p = p[own]
                p /= inclusion_C.to(dtype)
                p[own] = own_p
            totals = p.sum(1).float()
            loss += ((totals.log() - of_targets_R[rows]) * weights_R[rows]).sum()
            p *= (weights_R[rows] / totals)[:, None].to(dtype)
            p[own] -= weights_R[rows].to(dtype)
            state_gradient[rows] = p @ items
            item_gradient += p.T @ states[rows]
        ctx.save_for_backward(state_gradient, item_gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        state_gradient, item_gradient = ctx.saved_tensors
        return state_gradient * gradient, item_gradient * gradient, None, None, None


def reduced_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it faster than float32."""
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


# Training


class Trainer:
    """One model, its optimiser and the events it predicts, all on one device.

    A run that was interrupted goes on from its last whole epoch when it is started again with the same data and
    configuration. Of several processes each takes its share of every step's histories.
    """

    def __init__(self, log: Log, config: SequenceConfig, events: EventWeights, device: Device, seed: int) -> None:
        self.config, self.events, self.seed = config, events, seed
        self.device = torch.device(device.name)
        torch.manual_seed(seed)
        attributes = attribute_matrix(log).to(self.device) if config.attributes and len(log.attributes.items) else None
        self.model = Transformer(log.n_items, attributes, config).to(self.device)
        self.optimizer = self._optimizer()
        self.histories = log.histories
        self.items = torch.from_numpy(log.histories.items.astype(np.int64)).to(self.device)
        self.kinds = torch.from_numpy(log.histories.kinds.astype(np.int64)).to(self.device)
        weights = events.weights[log.histories.kinds]
        self.weights = torch.from_numpy(weights).to(self.device)
        self.weights_before = np.concatenate([[0], np.cumsum(weights, dtype=np.float64)])
        self.steps_per_epoch = max(1, round(int(np.maximum(log.histories.lengths - 1, 0).sum()) / config.batch_size))
        self.shares = torch.bincount(self.items, minlength=log.n_items) / max(1, len(self.items))
        self.touched = torch.unique(self.items)
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
        losses = [self.update(*batch) for batch in self._batches(np.random.default_rng([self.seed, self.n_epochs]))]
        self.n_epochs += 1
        return float(np.mean(losses)) if losses else 0.0

    @torch.no_grad()
    def ndcg(self, histories: Histories, wanted: NDArray[np.int32]) -> float:
        """Mean NDCG@10 over the whole catalogue of the one item that each person wanted next."""
        self.model.eval()
        table_VD, items_VD = self.model.item_table(), self.model.directions()
        gains = np.zeros(histories.n_users)
        recent = histories.last(self.config.max_length)
        for people, places, last in rectangles(recent.starts[:-1], recent.lengths):
            items_NL = torch.from_numpy(recent.items[places].astype(np.int64)).to(self.device)
            kinds_NL = torch.from_numpy(recent.kinds[places].astype(np.int64)).to(self.device)
            states_NLD = self.model.encoder(table_VD[items_NL] + self.model.kinds[kinds_NL])
            scores_NV = states_NLD[torch.arange(len(people)), torch.from_numpy(last)] @ items_VD.T
            targets_N1 = torch.from_numpy(wanted[people].astype(np.int64)).to(self.device)[:, None]
            places_N = (scores_NV >= scores_NV.gather(1, targets_N1)).sum(1).cpu().numpy()
            gains[people] = np.where(places_N <= 10, 1 / np.log2(places_N + 1), 0)
        return float(gains.mean())

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
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.n_epochs, self.best = state["step"], state["n_epochs"], state["best"]

    def update(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> float:
        """One step on stretches of histories: the events after each of ``lengths`` events from ``starts`` on."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._schedule()
        mine = slice(parallel.rank(), None, parallel.n_processes())
        weight = self.weights_before[starts + lengths + 1] - self.weights_before[starts + 1]
        loss = self._loss(starts[mine], lengths[mine], float(weight.sum()))
        self.optimizer.zero_grad()
        loss.backward()
        parallel.add_up([loss.detach(), *gradients(self.model)])
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def _loss(self, starts: NDArray[np.int64], lengths: NDArray[np.int64], total: float) -> Tensor:
        """What the events after some stretches' add to the mean loss of a step whose events weigh ``total``."""
        if not len(starts) or not total:
            return 0 * self.model.items.sum()
        table_VD = self.model.item_table()
        states, targets = [], []
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._is_reduced()):
            for _, places, last in rectangles(starts, lengths):
                place_NL = torch.from_numpy(places).to(self.device)
                is_real_NL = torch.from_numpy(np.arange(places.shape[1]) <= last[:, None]).to(self.device)
                read_NLD = functional.embedding(self.items[place_NL], table_VD) + self.model.kinds[self.kinds[place_NL]]
                states.append(self.model.encoder(read_NLD)[is_real_NL].float())
                targets.append((place_NL + 1)[is_real_NL])
        place_R = torch.cat(targets)
        weights_R = self.weights[place_R]
        states_RD = functional.normalize(torch.cat(states), dim=1) / self.config.temperature
        candidates, targets_R, inclusion_C = self._candidates(self.items[place_R])
        items_CD = functional.normalize(functional.embedding(candidates, table_VD), dim=1)
        loss: Tensor = CrossEntropy.apply(states_RD, items_CD, targets_R, weights_R / total, inclusion_C)
        return loss

    def _candidates(self, targets_R: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Items to tell the targets from, the targets' places among them, and the probability that each was drawn.

        Drawn are the targets of this process' share of the step and ``n_negatives`` uniform draws. Items that nobody
        touched are never told apart: they would only be pushed away, and are to be found by their attributes.
        """
        n_touched, n_drawn = len(self.touched), self.config.n_negatives
        if not n_drawn:
            return self.touched, torch.searchsorted(self.touched, targets_R), None
        uniform = self.touched[torch.randint(n_touched, (n_drawn,), device=self.device)]
        candidates, places = torch.unique(torch.cat([targets_R, uniform]), return_inverse=True)
        missed = (1 - self.shares[candidates]) ** len(targets_R) * (1 - 1 / n_touched) ** n_drawn
        return candidates, places[: len(targets_R)], 1 - missed

    def _batches(self, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Stretches of at most ``max_length`` events to learn from, in random order, of a like number per step."""
        starts, lengths = stretches(self.histories, self.config.max_length, rng)
        order = rng.permutation(len(starts))
        ends = np.cumsum(lengths[order])
        cuts = np.searchsorted(ends, np.arange(1, self.steps_per_epoch) * lengths.sum() / self.steps_per_epoch)
        for chosen in np.split(order, cuts):
            if len(chosen):
                yield starts[chosen], lengths[chosen]

    def _schedule(self) -> float:
        n_steps = self.steps_per_epoch * self.config.n_epochs
        rising = (self.step + 1) / (WARM_UP * n_steps + 1)
        return min(1.0, rising) * 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / n_steps)))

    def _optimizer(self) -> torch.optim.Optimizer:
        matrices = [p for name, p in self.model.named_parameters() if p.dim() > 1 and "bias" not in name]
        others = [p for name, p in self.model.named_parameters() if p.dim() <= 1 or "bias" in name]
        return torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            fused=True,
        )

    def _is_reduced(self) -> bool:
        return reduced_precision(self.device) == torch.bfloat16


def stretches(
    histories: Histories, max_length: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and lengths, int64 (n,), of the events from which the next are predicted.

    Every event but each person's first is predicted once, from at most ``max_length`` before it; longer histories are
    cut at random places.
    """
    starts, lengths = histories.starts[:-1], np.maximum(histories.lengths - 1, 0)
    first = np.where(lengths > max_length, rng.integers(1, max_length + 1, len(lengths)), lengths)
    n_more = -(-(lengths - first) // max_length)
    number = np.arange(n_more.sum()) - np.repeat(np.cumsum(n_more) - n_more, n_more)
    offsets = np.repeat(first, n_more) + number * max_length
    more_lengths = np.minimum(max_length, np.repeat(lengths, n_more) - offsets)
    all_starts = np.concatenate([starts, np.repeat(starts, n_more) + offsets])
    all_lengths = np.concatenate([first, more_lengths])
    return all_starts[all_lengths > 0], all_lengths[all_lengths > 0]


def attribute_matrix(log: Log) -> Tensor:
    """Which values the items have, sparse float32 (n_items, n_values)."""
    places = torch.from_numpy(np.stack([log.attributes.items, log.attributes.values]).astype(np.int64))
    shape = (log.n_items, len(log.attributes.names))
    return torch.sparse_coo_tensor(places, torch.ones(places.shape[1]), shape, check_invariants=False).coalesce()


def fit_member(log: Log, config: SequenceConfig, events: EventWeights, device: Device, seed: int) -> Transformer:
    """One model, fitted; with ``patience``, as it was after the epoch that ranked held-out events best."""
    log, held = hold_out(log, np.random.default_rng(seed)) if config.patience else (log, None)
    trainer = Trainer(log, config, events, device, seed)
    checkpoint = Checkpoint(trainer, log)
    while trainer.n_epochs < config.n_epochs and (held is None or not trainer.is_worn_out()):
        trainer.epoch()
        if held is not None:
            trainer.remember(parallel.from_first(lambda: trainer.ndcg(*held)))
        checkpoint.save()
    checkpoint.remove()
    if held is not None:
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
