# SPDX-License-Identifier: MIT
"""Choosing the next token of every row, and its log-probability.

A truncation is one threshold per row: keeping every token whose logit reaches it makes the kept set
independent of the order in which a sort leaves equal logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels.sampling_rows import Draw, Penalties, SamplingRows, Truncation

LOWEST_LOGPROB = -9999.0
_CANDIDATES = 1024  # a sort of so many usually finds the nucleus of the whole vocabulary


def sample(logits: Tensor, rows: SamplingRows) -> Tensor:
    if rows.bias is not None or rows.penalties is not None:
        logits = logits.clone()
    if rows.bias is not None:
        logits.index_put_((rows.bias.row, rows.bias.token), rows.bias.value, accumulate=True)
    if rows.penalties is not None:
        _penalise(logits, rows.penalties)
    if rows.draw is None:
        return logits.argmax(dim=-1)
    draw = rows.draw
    if draw.row.shape[0] == logits.shape[0]:
        return _drawn(logits, draw)
    ids = logits.argmax(dim=-1)
    ids[draw.row] = _drawn(logits[draw.row], draw)
    return ids


def token_logprobs(logits: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    total = logits.logsumexp(dim=-1, keepdim=True)
    chosen = (logits.gather(1, ids[:, None]) - total)[:, 0].clamp_(min=LOWEST_LOGPROB)
    top, top_ids = logits.topk(k, dim=-1)
    return chosen, top_ids, (top - total).clamp_(min=LOWEST_LOGPROB)


def _penalise(logits: Tensor, penalties: Penalties) -> None:
    """Divides (or multiplies) what was seen, then subtracts what was generated, in place."""
    mine = logits[penalties.row]
    history = penalties.token_table[penalties.slot, : penalties.longest].long()
    column = torch.arange(penalties.longest, device=logits.device)
    exists = column < penalties.total_len[:, None]
    generated = exists & (column >= penalties.prompt_len[:, None])
    history = history.masked_fill(~exists, 0)

    seen = torch.zeros_like(mine).scatter_add_(1, history, exists.to(mine.dtype))
    factor = penalties.repetition[:, None]
    repeated = torch.where(mine > 0, mine / factor, mine * factor)
    mine = torch.where(seen > 0, repeated, mine)

    count = torch.zeros_like(mine).scatter_add_(1, history, generated.to(mine.dtype))
    mine -= penalties.frequency[:, None] * count
    mine -= penalties.presence[:, None] * (count > 0)
    logits[penalties.row] = mine


def _drawn(logits: Tensor, draw: Draw) -> Tensor:
    """Inverts the cumulative distribution at each row's number: [n] ids."""
    scaled = logits / draw.temperature[:, None]
    mass = torch.exp(scaled - scaled.amax(dim=-1, keepdim=True))
    if draw.truncation is not None:
        _truncate(mass, draw.truncation)
    cumulative = mass.cumsum(dim=-1, dtype=torch.float64)
    target = draw.uniform[:, None] * cumulative[:, -1:]
    ids = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return ids.clamp_(max=logits.shape[1] - 1)


def _truncate(mass: Tensor, truncation: Truncation) -> None:
    """Sets the mass of every token below its row's threshold to 0, in place.

    mass: [n, V] fp32, relative to the most likely token's, which is 1.
    """
    mine = mass[truncation.row]
    threshold = mine.new_zeros(mine.shape[0], 1)
    if truncation.largest_top_k:
        threshold = _top_k_threshold(mine, truncation)
    if truncation.has_top_p:
        kept = mine.masked_fill(mine < threshold, 0)
        threshold = threshold.maximum(_top_p_threshold(kept, truncation.top_p))
    if truncation.has_min_p:
        threshold = threshold.maximum(truncation.min_p[:, None])
    mass[truncation.row] = mine.masked_fill(mine < threshold, 0)


def _top_k_threshold(mass: Tensor, truncation: Truncation) -> Tensor:
    """The mass of the k-th most likely token, 0 where top_k is off: [n, 1]."""
    vocab = mass.shape[1]
    top = mass.topk(min(truncation.largest_top_k, vocab), dim=-1).values
    last = (truncation.top_k.clamp(max=vocab) - 1).clamp(min=0)
    return top.gather(1, last[:, None]).masked_fill(truncation.top_k[:, None] == 0, 0)


def _top_p_threshold(mass: Tensor, top_p: Tensor) -> Tensor:
    """The smallest mass in the nucleus: [n, 1].

    A token is in it when the tokens before it, more likely ones first, hold less than top_p.
    """
    wanted = (top_p.double() * mass.sum(dim=-1, dtype=torch.float64))[:, None]
    candidates = min(_CANDIDATES, mass.shape[1])
    ordered = mass.topk(candidates, dim=-1).values
    if candidates < mass.shape[1]:
        held = ordered.sum(dim=-1, dtype=torch.float64, keepdim=True)
        if bool((held < wanted).any()):
            ordered = mass.sort(dim=-1, descending=True).values
    before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
    last = (before < wanted).sum(dim=-1, keepdim=True) - 1
    return ordered.gather(1, last.clamp(min=0)).masked_fill(top_p[:, None] >= 1, 0)
