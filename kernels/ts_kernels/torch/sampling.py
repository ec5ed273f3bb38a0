# SPDX-License-Identifier: MIT
"""Choosing the next token of every row, and its log-probability.

A truncation is one threshold per row: keeping every token whose mass reaches it makes the kept set
independent of the order in which a sort leaves equal masses.

On a CPU a few rows are processed at a time, so that the temporaries stay in the cache: 32 rows of
32,000 tokens draw in a third of the time (benchmarks/bench_torch_backend.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ts_kernels.sampling_rows import (
    LOWEST_LOGPROB,
    UNSAMPLEABLE,
    Draw,
    Penalties,
    SamplingRows,
    TokenBias,
    Truncation,
)

_AT_ONCE = 2**18  # logits, 1 MB


def sample(logits: Tensor, rows: SamplingRows) -> Tensor:
    if rows.bias is not None or rows.penalties is not None:
        logits = logits.clone()
    if rows.bias is not None:
        add_bias(logits, rows.bias)
    if rows.penalties is not None:
        for part in _parts(rows.penalties.row, logits):
            _penalise(logits, rows.penalties, part)
    if rows.all_draw(logits.shape[0]):
        ids = torch.empty(logits.shape[0], dtype=torch.int64, device=logits.device)
    else:
        ids = _most_likely(logits)
    draw(logits, rows.draws, ids)
    return ids


def add_bias(logits: Tensor, bias: TokenBias) -> None:
    logits.index_put_((bias.row, bias.token), bias.value, accumulate=True)


def draw(logits: Tensor, draws: tuple[Draw, ...], ids: Tensor) -> None:
    """Writes the tokens of the rows that draw to ids [R]."""
    for group in draws:
        for part in _parts(group.row, logits):
            ids[group.row[part]] = _drawn(logits, group, part)


def token_logprobs(logits: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    total = logits.logsumexp(dim=-1, keepdim=True)
    chosen = (logits.gather(1, ids[:, None]) - total)[:, 0].clamp_(min=LOWEST_LOGPROB)
    top, top_ids = logits.topk(k, dim=-1)
    return chosen, top_ids, (top - total).clamp_(min=LOWEST_LOGPROB)


def _parts(row: Tensor, logits: Tensor) -> Iterator[slice]:
    """Slices of a group of rows that are processed at once."""
    rows = row.shape[0]
    step = max(1, _AT_ONCE // logits.shape[1]) if logits.device.type == "cpu" else rows
    return (slice(first, first + step) for first in range(0, rows, step))


def _penalise(logits: Tensor, penalties: Penalties, part: slice) -> None:
    """Divides (or multiplies) what was seen, then subtracts what was generated, in place."""
    row = penalties.row[part]
    mine = logits[row]
    counts = penalties.counts[penalties.slot[part]]
    factor = penalties.repetition[part, None]
    repeated = torch.where(mine > 0, mine / factor, mine * factor)
    mine = torch.where(counts > 0, repeated, mine)
    generated = counts >> 1
    mine -= penalties.frequency[part, None] * generated
    mine -= penalties.presence[part, None] * (generated > 0)
    logits[row] = mine


def _drawn(logits: Tensor, draw: Draw, part: slice) -> Tensor:
    """Inverts each row's cumulative distribution at the row's number: [n] ids."""
    mass = logits[draw.row[part]]
    mass.sub_(mass.amax(dim=-1, keepdim=True)).div_(draw.temperature[part, None]).exp_()
    if draw.truncation is not None:
        mass.masked_fill_(mass < _smallest_kept(mass, draw.truncation, part), 0)
    cumulative = mass.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]  # NaN if the largest logit is no finite number
    # Less than the total: the next number below 1 is 1 - 2**-53, and no product with it rounds up.
    target = draw.uniform[part, None] * total
    ids = torch.searchsorted(cumulative, target, right=True)
    return torch.where(total > 0, ids, UNSAMPLEABLE)[:, 0]


def _smallest_kept(mass: Tensor, truncation: Truncation, part: slice) -> Tensor:
    """The threshold of every row: [n, 1]. mass: [n, V], the most likely token's is 1."""
    threshold = truncation.min_p[part, None]
    if not (truncation.has_top_k or truncation.has_top_p):
        return threshold
    ordered = _descending(mass)
    top_k = truncation.top_k[part, None]
    top_k = torch.where(top_k == 0, mass.shape[1], top_k.clamp(max=mass.shape[1]))
    kth = ordered.gather(1, top_k - 1)
    threshold = threshold.maximum(kth)
    if truncation.has_top_p:
        kept = ordered.masked_fill_(ordered < kth, 0)
        nucleus = _smallest_in_nucleus(kept, truncation.top_p[part, None])
        threshold = threshold.maximum(nucleus)
    return threshold


def _smallest_in_nucleus(ordered: Tensor, top_p: Tensor) -> Tensor:
    """The token with which the sum reaches top_p of the whole: [n, 1], 0 where top_p is off."""
    cumulative = ordered.cumsum(dim=-1, dtype=torch.float64)
    last = torch.searchsorted(cumulative, top_p.double() * cumulative[:, -1:])
    smallest = ordered.gather(1, last.clamp_(max=ordered.shape[1] - 1))
    return smallest.masked_fill_(top_p >= 1, 0)


def _most_likely(logits: Tensor) -> Tensor:
    """argmax, of equals the first. On a CPU by numpy, whose vectorised one is 10 times as fast.

    To both a NaN is the largest.
    """
    if logits.device.type != "cpu":
        largest, ids = logits.max(dim=-1)
        return torch.where(largest.isfinite(), ids, UNSAMPLEABLE)
    rows = logits.numpy()
    ids = rows.argmax(axis=-1)
    finite = np.isfinite(rows[np.arange(len(rows)), ids])
    if not finite.all():
        ids[~finite] = UNSAMPLEABLE
    return torch.from_numpy(ids)


def _descending(mass: Tensor) -> Tensor:
    """Each row sorted. On a CPU by numpy, whose vectorised sort is 40 times as fast."""
    if mass.device.type != "cpu":
        return mass.sort(dim=-1, descending=True).values
    return torch.from_numpy(np.sort(mass.numpy(), axis=-1)).flip(-1)
