# SPDX-License-Identifier: MIT
"""Random models with prompts, for the tests that hold the engine to an oracle."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynamo_tokenspeed.engine.offline import OfflineEngine
from dynamo_tokenspeed.protocol import EngineConfig
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint

VOCAB_SIZE = 384
MAX_MODEL_LEN = 160


@dataclass(frozen=True)
class EngineCase:
    """A checkpoint, a way to cut its work into pages and chunks, and eight prompts."""

    checkpoint: Path
    page_size: int
    chunk: int
    prompts: list[list[int]]

    def engine(self, **config: Any) -> OfflineEngine:
        """An engine over the checkpoint; `config` overrides fields of `EngineConfig`."""
        return OfflineEngine(self.config(**config))

    def config(self, **config: Any) -> EngineConfig:
        fields: dict[str, Any] = {
            "model": str(self.checkpoint),
            "dtype": "float32",
            "num_threads": 1,  # for models this small two are slower
            "page_size": self.page_size,
            "num_pages": 8 * self.pages(MAX_MODEL_LEN),
            "max_model_len": MAX_MODEL_LEN,
            "max_num_seqs": 8,
            "max_num_batched_tokens": 3 * self.chunk + 8,
            "chunked_prefill_size": self.chunk,
        }
        return EngineConfig(**fields | config)

    def too_few_pages(self, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        """Fields of `EngineConfig` with which one of them is retracted.

        Each prompt must end with a page, so that the first token behind it opens another one; all
        are computed in the first step, and in the second one page is missing.
        """
        assert all(len(prompt) % self.page_size == 0 for prompt in prompts) and len(prompts) > 1
        held = sum(self.pages(len(prompt)) for prompt in prompts)
        longest = max(map(len, prompts)) + new_tokens
        return {
            "max_model_len": longest,
            "num_pages": max(held + len(prompts) - 1, self.pages(longest)),
            "chunked_prefill_size": longest,
            "max_num_batched_tokens": len(prompts) * longest,
        }

    def pages(self, tokens: int) -> int:
        """Pages that so many tokens need."""
        return -(-tokens // self.page_size)


def make_case(seed: int, folder: Path) -> EngineCase:
    """The same seed makes the same case."""
    rng = random.Random(seed)
    checkpoint = write_random_checkpoint(
        folder,
        arch="kimi_k25" if seed % 5 == 4 else "deepseek_v3",
        tokenizer=False,
        seed=seed,
        std=0.15,  # large enough for attention to have opinions
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=512,
        **_geometry(rng),
    )
    page_size = rng.choice([1, 4, 8, 16])
    chunk = rng.choice([5, 16, 24])
    lengths = [1, page_size, page_size + 1, chunk, chunk + 1, 3 * chunk - 1, 3 * chunk + 2]
    lengths.append(rng.randrange(2, 100))
    rng.shuffle(lengths)
    prompts = [[rng.randrange(VOCAB_SIZE) for _ in range(length)] for length in lengths]
    return EngineCase(checkpoint, page_size, chunk, prompts)


def _geometry(rng: random.Random) -> dict[str, Any]:
    groups = rng.choice([1, 2, 4])
    top_groups = rng.randint(1, groups)
    experts_per_group = rng.choice([2, 3, 4])
    layers = rng.randint(1, 3)
    return {
        "hidden_size": rng.choice([32, 48, 64]),
        "num_hidden_layers": layers,
        "num_attention_heads": rng.choice([1, 2, 3, 4, 8]),
        "q_lora_rank": rng.choice([None, 16, 24]),
        "kv_lora_rank": rng.choice([16, 32, 48]),
        "qk_nope_head_dim": rng.choice([8, 16, 24]),
        "qk_rope_head_dim": rng.choice([4, 8, 16]),
        "v_head_dim": rng.choice([8, 16, 24]),
        "intermediate_size": rng.choice([32, 80]),
        "moe_intermediate_size": rng.choice([16, 24]),
        "n_routed_experts": groups * experts_per_group,
        "n_shared_experts": rng.choice([1, 2]),
        "num_experts_per_tok": rng.randint(1, top_groups * experts_per_group),
        "n_group": groups,
        "topk_group": top_groups,
        "norm_topk_prob": rng.random() < 0.7,
        "routed_scaling_factor": rng.choice([1.0, 2.5]),
        "first_k_dense_replace": rng.randint(0, layers),
        "rope_theta": rng.choice([10_000.0, 50_000.0]),
        "rope_interleave": rng.random() < 0.8,
        "yarn_factor": rng.choice([None, 4.0, 16.0]),
        "yarn_original_max_position_embeddings": 32,
        "yarn_mscale": rng.choice([0.7, 1.0]),
        "yarn_mscale_all_dim": rng.choice([0.0, 1.0]),
        "tie_word_embeddings": rng.random() < 0.3,
    }
