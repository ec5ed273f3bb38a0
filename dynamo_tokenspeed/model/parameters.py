# SPDX-License-Identifier: MIT
"""Allocates a model's weights as its layers declare them, counts and places them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import torch

from dynamo_tokenspeed.model.weight import Placement, Target, Unquantized, Weight


@dataclass(frozen=True)
class Parameters:
    """`new((2, 3), Placement("w"))` is an uninitialized `[2, 3]` that the tensor `w` will fill.

    `found` are the names in the checkpoint, where it may hold the same in several layouts:
    `"w" in new`. All names follow `prefix`.
    """

    device: torch.device | str
    dtype: torch.dtype
    found: Collection[str] = ()
    prefix: str = ""
    weights: list[Weight] = field(default_factory=list)
    placements: dict[str, tuple[Weight, Placement]] = field(default_factory=dict)

    def __call__(
        self, shape: tuple[int, ...], *placements: Placement, dtype: torch.dtype | None = None
    ) -> Weight:
        weight = Unquantized(dtype or self.dtype).allocate(shape, self.device)
        self.weights.append(weight)
        for placement in placements:
            self.placements[self.prefix + placement.name] = (weight, placement)
        return weight

    def under(self, prefix: str) -> Parameters:
        """These parameters, for a layer whose tensors' names begin with `prefix`."""
        return replace(self, prefix=self.prefix + prefix)

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.found

    @property
    def nbytes(self) -> int:
        return sum(weight.nbytes for weight in self.weights)

    def targets(self) -> dict[str, Target]:
        """By its full name, what fills each weight."""
        return {
            name: weight.scheme.target(weight, placement)
            for name, (weight, placement) in self.placements.items()
        }
