# SPDX-License-Identifier: MIT
"""Choosing tokens. What draws them is PyTorch's; penalties and the most likely token are here."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels import _native
from ts_kernels.sampling_rows import Penalties, SamplingRows
from ts_kernels.torch.sampling import add_bias, draw


def sample(logits: Tensor, rows: SamplingRows) -> Tensor:
    if rows.bias is not None or rows.penalties is not None:
        logits = logits.clone(memory_format=torch.contiguous_format)
    if rows.bias is not None:
        add_bias(logits, rows.bias)
    if rows.penalties is not None:
        _penalise(logits, rows.penalties)
    ids = torch.empty(logits.shape[0], dtype=torch.int64)
    if not rows.all_draw(logits.shape[0]):
        _most_likely(logits, ids)
    draw(logits, rows.draws, ids)
    return ids


def _most_likely(logits: Tensor, ids: Tensor) -> None:
    row, step = logits.stride()
    if step != 1:
        logits = logits.contiguous()
        row = logits.shape[1]
    _native.most_likely(logits.data_ptr(), ids.data_ptr(), *logits.shape, row)


def _penalise(logits: Tensor, penalties: Penalties) -> None:
    rows, vocab = penalties.row.shape[0], logits.shape[1]
    _native.penalise(
        logits.data_ptr(),
        penalties.counts.data_ptr(),
        penalties.row.data_ptr(),
        penalties.slot.data_ptr(),
        penalties.presence.data_ptr(),
        penalties.frequency.data_ptr(),
        penalties.repetition.data_ptr(),
        rows,
        vocab,
    )
