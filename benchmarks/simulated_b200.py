# SPDX-License-Identifier: MIT
"""How long a step of a Kimi-K2.5-like model would take on eight B200: a roofline, not measured.

    seconds = overhead + max(bytes / bandwidth, flops / rate)

One replica on 8 GPUs; experts, heads and the KV cache's context are spread evenly over them. The
model has 61 layers, 60 of them with 8 of 384 routed experts per token; about 1,014 B parameters are
routed, 11 B are not. Bytes: the unrouted weights in bf16; of the routed ones (4 bits and a scale
for each 16) those experts that the step's tokens reach if routing is uniform; for each decode row
its context's latent KV in fp8. Flops: two for each active parameter (32 B) and token; prefill
attention over expanded keys and values (64 heads of 192 and 128); and, once for each row of
prefill, the expansion of its context from the latent.
"""

from __future__ import annotations

import numpy as np

GPUS = 8
BANDWIDTH = 8e12 * 0.75  # bytes/s of one GPU, and the part of it that kernels reach
RATE = 4.5e15 * 0.40  # dense fp8 flops/s of one GPU, and the part of it that prefill reaches
OVERHEAD = 2.5e-3  # seconds: two collectives in each of 61 layers, launches, the host

LAYERS, HEADS = 61, 64
EXPERTS, EXPERTS_PER_TOKEN = 384, 8
ROUTED_BYTES = 1014e9 * 4.5 / 8
UNROUTED_BYTES = 11e9 * 2
KV_BYTES = 576 * LAYERS  # of a token, fp8
ACTIVE_PARAMETERS = 32e9
PAIR_FLOPS = 2 * HEADS * (192 + 128) * LAYERS  # of a token and a KV entry before it
EXPAND_FLOPS = 2 * 512 * HEADS * (128 + 128) * LAYERS  # of a KV entry


def step_seconds(row_start: np.ndarray, row_tokens: np.ndarray) -> float:
    """Of a step with these rows; rows of one token are decodes."""
    start, tokens = row_start.astype(np.float64), row_tokens.astype(np.float64)
    decodes = row_tokens == 1
    context = start + tokens
    reached = 1 - (1 - EXPERTS_PER_TOKEN / EXPERTS) ** tokens.sum()
    read = UNROUTED_BYTES + ROUTED_BYTES * reached + KV_BYTES * context[decodes].sum()
    pairs = (tokens * (start + tokens / 2))[~decodes].sum()
    flops = (
        2 * ACTIVE_PARAMETERS * tokens.sum()
        + PAIR_FLOPS * pairs
        + EXPAND_FLOPS * context[~decodes].sum()
    )
    return float(OVERHEAD + max(read / BANDWIDTH, flops / RATE) / GPUS)
