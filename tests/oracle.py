# SPDX-License-Identifier: MIT
"""`transformers` as the oracle: the same checkpoint directory, computed by someone else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor


class Oracle:
    """A checkpoint loaded by `transformers` on the CPU, eager attention."""

    def __init__(self, directory: str | Path, dtype: torch.dtype = torch.float32) -> None:
        config = json.loads((Path(directory) / "config.json").read_text())
        family = {
            "deepseek_v3": transformers.DeepseekV3ForCausalLM,
            "kimi_k25": transformers.Kimi_K25ForConditionalGeneration,
        }[config["model_type"]]
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        model, self.loading = family.from_pretrained(
            directory, dtype=dtype, attn_implementation="eager", output_loading_info=True
        )
        self.model = model.eval()

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Logits after each token, [len(tokens), vocab] fp32."""
        return self.model(input_ids=torch.tensor([list(tokens)])).logits[0].float()

    @torch.inference_mode()
    def greedy(self, prompt: Sequence[int], num_tokens: int) -> list[int]:
        """The `num_tokens` tokens that follow `prompt`; no token ends the text."""
        cache, step, out = None, list(prompt), []
        for _ in range(num_tokens):
            result = self.model(
                input_ids=torch.tensor([step]), past_key_values=cache, use_cache=True
            )
            cache, step = result.past_key_values, [int(result.logits[0, -1].argmax())]
            out += step
        return out


def greedy_tokens(
    directory: str | Path,
    prompts: Sequence[Sequence[int]],
    num_tokens: int,
    dtype: torch.dtype = torch.float32,
) -> list[list[int]]:
    """What `transformers` generates greedily for each prompt, one at a time."""
    oracle = Oracle(directory, dtype)
    return [oracle.greedy(prompt, num_tokens) for prompt in prompts]
