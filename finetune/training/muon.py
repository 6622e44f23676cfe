"""The Muon optimizer: momentum, made orthogonal by Newton-Schulz steps, for the matrices of a layer.

Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the scale that
matches AdamW's is from J. Liu et al., "Muon is scalable for LLM training", 2025. torch.optim.Muon is the same with
steps in bfloat16 always, which a processor without bfloat16 units computes a hundred times slower than float32.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay.

    Args:
        params: matrices, (row, column).
        lr: learning rate, on AdamW's scale.
        momentum: share of the past.
        weight_decay: share of a weight lost each step, times lr.
        step_dtype: what the Newton-Schulz steps compute in; bfloat16 where the machine has units for it.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        step_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._step_dtype = step_dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every matrix that has a gradient; matrices of one shape are made orthogonal together."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                directions = torch.stack([self._direction(p, group["momentum"]) for p in parameters])
                updates = orthogonal(directions.to(self._step_dtype)).to(directions.dtype)
                scale = 0.2 * math.sqrt(max(shape))
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * scale)

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return matrices with about the same singular vectors and singular values near 1.

    Args:
        matrices: float32 or bfloat16 (matrix, row, column).
    """
    first, second, third = NEWTON_SCHULZ
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if is_tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.transpose(1, 2)
        x = first * x + (second * square + third * square @ square) @ x
    return x.transpose(1, 2) if is_tall else x
