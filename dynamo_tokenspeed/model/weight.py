# SPDX-License-Identifier: MIT
"""A weight: how its values lie in memory, and which tensors of a checkpoint fill it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import EllipsisType

import torch
from torch import Tensor

Part = int | slice | EllipsisType | tuple[int | slice, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """A tensor of the checkpoint, and the part of a weight that it fills.

    In the file the part's dimensions may stand in another order, be merged, and its rows permuted.
    """

    name: str
    part: Part = ...  # an index of the weight; as it is: all of it
    # The dimension of the part of which each rank of tensor parallelism holds a stretch; None: it
    # holds all, or its share of a sum if `partial`.
    shard: int | None = None
    partial: bool = False
    axes: tuple[int, ...] | None = None  # the part's dimensions, in the order of the file
    shape: tuple[int, ...] | None = None  # in the file, where dimensions are merged there
    order: Tensor | None = None  # row i of the part is row order[i] of the file


@dataclass(frozen=True, slots=True)
class Target:
    """One tensor that the model wants, and what to do with it."""

    shape: tuple[int, ...]
    write: Callable[[Tensor], object]
    dtype: torch.dtype | None = None  # of the destination, where the tensor is copied as it is


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """`data` as `scheme` stores it, and what scales it."""

    data: Tensor
    scheme: Unquantized
    scales: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + (0 if self.scales is None else self.scales.nbytes)


@dataclass(frozen=True, slots=True)
class Unquantized:
    """Values as they are, in `dtype`; a layer's ops take `Weight.data`."""

    dtype: torch.dtype

    def allocate(self, shape: tuple[int, ...], device: torch.device | str) -> Weight:
        return Weight(torch.empty(shape, dtype=self.dtype, device=device), self)

    def target(self, weight: Weight, placement: Placement) -> Target:
        """What fills the part of `weight` that `placement` names."""
        destination = weight.data[placement.part]
        if placement.axes is not None:
            destination = destination.permute(placement.axes)
        order = placement.order

        def write(source: Tensor) -> None:
            rows = source if order is None else source[order]
            destination.copy_(rows.view(destination.shape))

        return Target(placement.shape or tuple(destination.shape), write, self.dtype)
