"""Cross-entropy over the catalogue, or over drawn items that stand for it.

Shapes: T targets, D width, V items of the catalogue, C candidates of a step.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LOGITS_AT_ONCE = {"cpu": 2**23, "cuda": 2**29}
"""So many are held at once: on a processor few enough to stay in its cache."""


class Negatives:
    """What targets are told apart from: all touched items, or the targets of the same step and uniform draws.

    Items that nobody touched are never told apart: they would only be pushed away, and are to be found by their
    attributes.

    touched : the items, int64, sorted, distinct
    told : the targets of all steps, int64
    n_drawn : uniform draws per step; 0: all touched items
    """

    def __init__(self, touched: Tensor, told: Tensor, n_drawn: int) -> None:
        self.touched, self.n_drawn = touched, n_drawn
        n_items = int(touched[-1]) + 1 if len(touched) else 0
        self.shares = torch.bincount(told, minlength=n_items) / max(1, len(told))

    def candidates(self, targets_T: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Items (C,), the targets' places among them (T,), and the probability that each was drawn (C,).

        None for the whole catalogue, of which each is certain.
        """
        if not self.n_drawn:
            return self.touched, torch.searchsorted(self.touched, targets_T), None
        n_touched = len(self.touched)
        uniform = self.touched[torch.randint(n_touched, (self.n_drawn,), device=targets_T.device)]
        candidates, places = torch.unique(torch.cat([targets_T, uniform]), return_inverse=True)
        missed_C = (1 - self.shares[candidates]) ** len(targets_T) * (1 - 1 / n_touched) ** self.n_drawn
        return candidates, places[: len(targets_T)], 1 - missed_C


def of_cosines(
    states_TD: Tensor,
    targets_T: Tensor,
    weights_T: Tensor,
    table_VD: Tensor,
    negatives: Negatives,
    temperature: float,
    groups_T: Tensor | None = None,
) -> Tensor:
    """``CrossEntropy`` of the cosines of states and items, divided by a temperature."""
    candidates, columns_T, inclusion_C = negatives.candidates(targets_T)
    states_TD = functional.normalize(states_TD, dim=1) / temperature
    items_CD = functional.normalize(functional.embedding(candidates, table_VD), dim=1)
    loss: Tensor = CrossEntropy.apply(states_TD, items_CD, columns_T, weights_T, inclusion_C, groups_T)
    return loss


class CrossEntropy(torch.autograd.Function):
    """``sum_t weight_t (log sum_c exp(s_tc) / inclusion_c - s_t,target)``, whose gradient is formed beside the value.

    The logits ``s`` of some rows at a time live in one buffer; they are bounded by the temperature, so no maximum is
    subtracted. ``inclusion`` is the probability with which a candidate was drawn (Horvitz, Thompson, 1952), None for
    the whole catalogue; a row's own target is always there and counts in full. Rows of one of ``groups``, numbers that
    do not fall, are not told apart from each other's targets.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        states_TD: Tensor,
        items_CD: Tensor,
        targets_T: Tensor,
        weights_T: Tensor,
        inclusion_C: Tensor | None,
        groups_T: Tensor | None,
    ) -> Tensor:
        dtype = reduced_precision(states_TD.device)
        states, items = states_TD.to(dtype), items_CD.to(dtype)
        state_gradient, item_gradient = torch.empty_like(states_TD), torch.zeros_like(items_CD)
        loss = states_TD.new_zeros(())
        n_rows = LOGITS_AT_ONCE[states.device.type] // len(items) + 1
        for start in range(0, len(states), n_rows):
            rows = slice(start, start + n_rows)
            p = (states[rows] @ items.T).exp_()
            if not (inclusion_C is None and groups_T is None):
                own = torch.arange(len(p), device=p.device), targets_T[rows]
                own_p = p[own]
                if inclusion_C is not None:
                    p /= inclusion_C.to(dtype)
                if groups_T is not None:
                    p[_of_their_groups(rows, targets_T, groups_T)] = 0
                p[own] = own_p
            totals = p.sum(1, dtype=torch.float32)
            loss += totals.log() @ weights_T[rows]
            scale_T1 = (weights_T[rows] / totals)[:, None]
            state_gradient[rows] = (p @ items) * scale_T1
            item_gradient += p.T @ (states_TD[rows] * scale_T1).to(dtype)
        of_targets_TD = items_CD[targets_T] * weights_T[:, None]
        loss -= (states_TD * of_targets_TD).sum()
        state_gradient -= of_targets_TD
        item_gradient.index_add_(0, targets_T, states_TD * weights_T[:, None], alpha=-1)
        ctx.save_for_backward(state_gradient, item_gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        state_gradient, item_gradient = ctx.saved_tensors
        return state_gradient * gradient, item_gradient * gradient, None, None, None, None


def _of_their_groups(rows: slice, targets_T: Tensor, groups_T: Tensor) -> tuple[Tensor, Tensor]:
    """Of each of some rows, from 0, the targets of all rows of its group: pairs of both."""
    sizes = torch.bincount(groups_T)
    begins = (sizes.cumsum(0) - sizes)[groups_T[rows]]
    sizes = sizes[groups_T[rows]]
    row = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    place = torch.arange(len(row), device=row.device) - (sizes.cumsum(0) - sizes)[row]
    return row, targets_T[begins[row] + place]


def reduced_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it faster than float32."""
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
