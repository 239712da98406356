"""Muon: the momentum of a layer's matrix is made orthogonal before it moves the weights.

Keller Jordan et al., *Muon: an optimizer for hidden layers in neural networks* (2024), with the
step of Liu et al., *Muon is Scalable for LLM Training* (arXiv:2502.16982): of the size that AdamW's
would have, so that both share one learning rate. ``torch.optim.Muon`` computes in bfloat16, one
matrix after another; on a CPU that takes longer than the whole training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic polynomial that drives singular values towards 1; its slope at 0 is steep."""

NUM_ITERATIONS = 5

ADAMW_SIZE = 0.2
"""Root mean square of a step of AdamW, in learning rates, as it is measured."""

MOST_AT_ONCE = 2**24
"""Numbers that are made orthogonal together: fast for small matrices, bounded for large ones."""


class Muon(AdamW):
    """AdamW, but for groups with ``orthogonal=True``, whose parameters must be matrices.

    Args:
        groups: parameters; ``orthogonal`` is False where it is not given, ``momentum`` 0.95.
        lr: learning rate of all groups that have none of their own.
        fused: whether AdamW goes over its parameters in one kernel.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, fused: bool = False) -> None:
        usual = {"orthogonal": False, "momentum": 0.95}
        super().__init__([usual | group for group in groups], lr=lr, fused=fused)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group["orthogonal"]:
                self._move(group)
        self.param_groups = [group for group in groups if not group["orthogonal"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _move(self, group: dict[str, Any]) -> None:
        alike: dict[tuple[torch.Size, torch.dtype, torch.device], list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                key = (parameter.shape, parameter.dtype, parameter.device)
                alike.setdefault(key, []).append(parameter)
        for (shape, *_), parameters in alike.items():
            size = ADAMW_SIZE * max(shape) ** 0.5  # of an orthogonal matrix it is 1 / sqrt(max)
            at_once = max(1, MOST_AT_ONCE // shape.numel())
            for start in range(0, len(parameters), at_once):
                some = parameters[start : start + at_once]
                ahead = [self._ahead(parameter, group["momentum"]) for parameter in some]
                for parameter, update in zip(some, orthogonal(torch.stack(ahead)), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * size)

    def _ahead(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov's momentum: that of the next step, were its gradient the same."""
        state = self.state[parameter]
        if not state:  # the names of AdamW, which looks for a ``step`` when it is loaded
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["exp_avg"], momentum)  # type: ignore[union-attr]


def orthogonal(matrices: Tensor) -> Tensor:
    """The orthogonal matrices that are nearest, roughly: most singular values become 0.7 to 1.2.

    Those that are far smaller than the others stay below.

    Args:
        matrices: (n, rows, columns) float; on a GPU bfloat16 is exact enough, and fast.

    Returns:
        (n, rows, columns), of the same type.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x  # the smaller products
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NUM_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = (x.mT if is_tall else x).to(matrices.dtype)
    return result
