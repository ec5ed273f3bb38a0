# SPDX-License-Identifier: MIT
"""Sampling and log-probabilities, one row and one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels.sampling_rows import (
    LOWEST_LOGPROB,
    UNSAMPLEABLE,
    Draw,
    Penalties,
    SamplingRows,
    TokenBias,
)


def sample(logits: Tensor, rows: SamplingRows) -> Tensor:
    logits = logits.clone()
    if rows.bias is not None:
        _add_bias(logits, rows.bias)
    if rows.penalties is not None:
        _penalise(logits, rows.penalties)
    ids = logits.argmax(dim=-1)
    for draw in rows.draws:
        for index, row in enumerate(draw.row.tolist()):
            if logits[row].max().isfinite():
                ids[row] = _drawn(logits[row], draw, index)
    ids[~logits.amax(dim=-1).isfinite()] = UNSAMPLEABLE
    return ids


def token_logprobs(logits: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    logprobs = torch.log_softmax(logits.double(), dim=-1).float().clamp(min=LOWEST_LOGPROB)
    top, top_ids = logprobs.sort(dim=-1, descending=True, stable=True)
    return logprobs[torch.arange(len(ids)), ids], top_ids[:, :k], top[:, :k]


def _add_bias(logits: Tensor, bias: TokenBias) -> None:
    for row, token, value in zip(bias.row, bias.token, bias.value, strict=True):
        logits[row, token] += value


def _penalise(logits: Tensor, penalties: Penalties) -> None:
    for index, row in enumerate(penalties.row.tolist()):
        counts = penalties.counts[penalties.slot[index]].tolist()
        factor = penalties.repetition[index]
        for token, count in enumerate(counts):
            if count == 0:
                continue
            logit = logits[row, token]
            logits[row, token] = logit / factor if logit > 0 else logit * factor
            generated = count // 2
            if generated:
                logits[row, token] -= penalties.frequency[index] * generated
                logits[row, token] -= penalties.presence[index]


def _drawn(logits: Tensor, draw: Draw, index: int) -> int:
    mass = torch.exp((logits - logits.max()) / draw.temperature[index])
    if draw.truncation is not None:
        top_k, top_p = int(draw.truncation.top_k[index]), float(draw.truncation.top_p[index])
        if 0 < top_k < len(mass):
            mass[mass < mass.sort(descending=True).values[top_k - 1]] = 0
        if top_p < 1:
            mass[mass < _smallest_in_nucleus(mass, top_p)] = 0
        mass[mass < draw.truncation.min_p[index]] = 0
    target = float(draw.uniform[index]) * sum(mass.tolist())
    held = 0.0
    for token, amount in enumerate(mass.tolist()):
        held += amount
        if held > target:
            return token
    raise AssertionError("the target is below the sum")


def _smallest_in_nucleus(mass: Tensor, top_p: float) -> float:
    ordered = mass.sort(descending=True).values.tolist()
    wanted = top_p * sum(ordered)
    held = 0.0
    for amount in ordered:
        held += amount
        if held >= wanted:
            return float(amount)
    return float(ordered[-1])
