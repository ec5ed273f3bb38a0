# SPDX-License-Identifier: MIT
"""What memory bandwidth allows: bytes that a decode step must read, and how fast they come."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

import torch


def read_bandwidth(mib: int = 512, runs: int = 7) -> float:
    """Bytes/s of summing a large fp32 array with all cores, the median of `runs`."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    array = torch.ones(mib << 18)
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        array.sum()
        seconds.append(time.perf_counter() - started)
    return array.nbytes / statistics.median(seconds[1:])


def decode_bytes(model: str | Path, batch: int, context: int, itemsize: int = 2) -> float:
    """Expected bytes of weights and KV read by one decode step of a DeepSeek-V3 checkpoint.

    Of E routed experts with k per token, E (1 - (1 - k/E)^batch) are expected to be touched.
    """
    c = json.loads(Path(model, "config.json").read_text())
    hidden, heads, latent = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"]
    nope, rope, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    q_rank = c.get("q_lora_rank")
    query = heads * (nope + rope)
    attention = q_rank * (hidden + query) if q_rank else hidden * query
    attention += hidden * (latent + rope) + heads * (nope + value) * latent + heads * value * hidden
    dense_layers = c["first_k_dense_replace"]
    moe_layers = c["num_hidden_layers"] - dense_layers
    expert = 3 * hidden * c["moe_intermediate_size"]
    experts, k = c["n_routed_experts"], c["num_experts_per_tok"]
    touched = experts * (1 - (1 - k / experts) ** batch) + (c.get("n_shared_experts") or 0)
    weights = (
        c["num_hidden_layers"] * attention
        + dense_layers * 3 * hidden * c["intermediate_size"]
        + moe_layers * (touched * expert + experts * hidden)
        + c["vocab_size"] * hidden
    )
    kv = batch * context * c["num_hidden_layers"] * (latent + rope)
    return float(itemsize * (weights + kv))
