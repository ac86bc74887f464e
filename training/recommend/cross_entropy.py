"""Cross-entropy over the catalogue, or over drawn items that stand for it.

Shapes: T targets, D width, C candidates of a step.
"""

from typing import Any

import torch
from torch import Tensor

LOGITS_AT_ONCE = {"cpu": 2**23, "cuda": 2**29}
"""So many are held at once: on a processor few enough to stay in its cache."""


class Candidates:
    """What the targets of a step are told apart from: all touched items, or the targets themselves and uniform draws.

    Items that nobody touched are never told apart: they would only be pushed away, and are to be found by their
    attributes.

    touched : the items, int64, sorted, distinct
    told : the targets of all steps, int64
    n_drawn : uniform draws per step; 0: all touched items
    """

    def __init__(self, touched: Tensor, told: Tensor, n_drawn: int) -> None:
        self.touched, self.n_drawn = touched, n_drawn
        self.shares = torch.bincount(told, minlength=int(touched[-1]) + 1 if len(touched) else 0) / max(1, len(told))

    def __call__(self, targets_T: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Candidates (C,), the targets' places among them (T,), and the probability that each was drawn (C,).

        None for the whole catalogue, of which each is certain.
        """
        if not self.n_drawn:
            return self.touched, torch.searchsorted(self.touched, targets_T), None
        n_touched = len(self.touched)
        uniform = self.touched[torch.randint(n_touched, (self.n_drawn,), device=targets_T.device)]
        candidates, places = torch.unique(torch.cat([targets_T, uniform]), return_inverse=True)
        missed = (1 - self.shares[candidates]) ** len(targets_T) * (1 - 1 / n_touched) ** self.n_drawn
        return candidates, places[: len(targets_T)], 1 - missed


class CrossEntropy(torch.autograd.Function):
    """``sum_t weight_t (log sum_c exp(s_tc) / inclusion_c - s_t,target)``, whose gradient is formed beside the value.

    The logits ``s`` of some rows at a time live in one buffer; they are bounded by the temperature, so no maximum is
    subtracted. ``inclusion`` is the probability with which a candidate was drawn (Horvitz, Thompson, 1952), None for
    the whole catalogue; a row's own target is always there and counts in full.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        states_TD: Tensor,
        items_CD: Tensor,
        targets_T: Tensor,
        weights_T: Tensor,
        inclusion_C: Tensor | None,
    ) -> Tensor:
        dtype = reduced_precision(states_TD.device)
        states, items = states_TD.to(dtype), items_CD.to(dtype)
        state_gradient, item_gradient = torch.empty_like(states_TD), torch.zeros_like(items_CD)
        loss = states_TD.new_zeros(())
        n_rows = LOGITS_AT_ONCE[states.device.type] // len(items) + 1
        for start in range(0, len(states), n_rows):
            rows = slice(start, start + n_rows)
            p = (states[rows] @ items.T).exp_()
            if inclusion_C is not None:
                own = (torch.arange(len(p), device=p.device), targets_T[rows])
                own_p = p[own]
                p /= inclusion_C.to(dtype)
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
        return state_gradient * gradient, item_gradient * gradient, None, None, None


def reduced_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it faster than float32."""
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
