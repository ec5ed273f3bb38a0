# SPDX-License-Identifier: MIT
"""Cheap checks of arguments: they read sizes and dtypes, never values, and raise one sentence."""

from __future__ import annotations

import torch
from torch import Tensor


def shape(name: str, tensor: Tensor, *sizes: int | None) -> None:
    """ValueError unless `tensor` has these sizes; None: any."""
    actual = tensor.shape
    if len(actual) == len(sizes) and all(
        want is None or want == have for want, have in zip(sizes, actual, strict=True)
    ):
        return
    wanted = ", ".join("any" if size is None else str(size) for size in sizes)
    raise ValueError(f"{name} is {list(actual)}, but must be [{wanted}]")


def dtype(name: str, tensor: Tensor, *accepted: torch.dtype) -> None:
    """ValueError unless `tensor` has one of these dtypes."""
    if tensor.dtype not in accepted:
        wanted = " or ".join(str(a).removeprefix("torch.") for a in accepted)
        raise ValueError(
            f"{name} is {str(tensor.dtype).removeprefix('torch.')}, but must be {wanted}"
        )
