"""How the step size goes over a training."""

import math

WARM_UP = 0.03
"""Share of the steps in which the step size rises."""


def cosine(step: int, n_steps: int) -> float:
    """The share of the highest step size at a step: it rises in a line and then falls to zero along a cosine.

    Source: Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, section 3, one cycle.

    >>> [round(cosine(step, 100), 2) for step in (0, 2, 3, 50, 100)]
    [0.25, 0.75, 1.0, 0.5, 0.0]
    """
    rising = (step + 1) / (WARM_UP * n_steps + 1)
    return min(1.0, rising) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / n_steps)))
