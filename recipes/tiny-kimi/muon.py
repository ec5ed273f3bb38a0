# SPDX-License-Identifier: MIT
"""Muon (Jordan et al. 2024), which also trained Kimi K2: momentum, orthogonalized.

Stacked experts [experts, out, in] are orthogonalized in one batch, which one CPU core likes better
than many small matrices; `torch.optim.Muon` takes plain matrices only.
"""

import torch
from torch import Tensor


def orthogonalize(update: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix of each [..., rows, columns], by Newton-Schulz in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Steps have the root-mean-square size of AdamW's (Liu et al., arXiv:2502.16982)."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.05):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                self._update(param, group)

    def _update(self, param: Tensor, group: dict) -> None:
        buffer = self.state[param].setdefault("momentum", torch.zeros_like(param))
        buffer.lerp_(param.grad, 1 - group["momentum"])
        update = orthogonalize(param.grad.lerp(buffer, group["momentum"]))
        size = 0.2 * max(param.shape[-2:]) ** 0.5
        param.mul_(1 - group["lr"] * group["weight_decay"])
        param.add_(update, alpha=-group["lr"] * size)
