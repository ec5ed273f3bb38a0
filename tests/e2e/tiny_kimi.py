# SPDX-License-Identifier: MIT
"""How end-to-end tests start the shipped recipe."""

from __future__ import annotations

from dynamo_environments import ROOT

RECIPE = ROOT / "recipes/tiny-kimi/agg.yaml"
CHECKPOINT = RECIPE.parent
VOCAB_SIZE = 4096

MAX_MODEL_LEN = 2048
PAGE_SIZE = 16
NUM_PAGES = 192  # one and a half of the longest sequences: evictions are easy to force
_PAGE_BYTES = PAGE_SIZE * 576 * 4 * 4  # latent and rope key, four layers, fp32

# fp32 and one thread each: equal tokens whatever runs beside them, on two cores.
WORKER_FLAGS = (
    *("--dtype", "float32", "--num-threads", "1"),
    *("--max-model-len", str(MAX_MODEL_LEN), "--kv-cache-memory", str(NUM_PAGES * _PAGE_BYTES)),
)
