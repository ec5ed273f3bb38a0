# SPDX-License-Identifier: MIT
"""The text half of Kimi K2.5: a DeepSeek-V3 language model inside a vision-language checkpoint.

config.json nests the language model under `text_config`; its tensors are named
`language_model.model.…` and `language_model.lm_head.weight`, or as `transformers` 5 keeps them in
memory. The vision tower and the projector are not loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dynamo_tokenspeed.model.checkpoint_headers import TensorInfo
from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.errors import ModelError
from dynamo_tokenspeed.model.families.deepseek_v3 import DeepseekV3ForCausalLM
from dynamo_tokenspeed.model.families.deepseek_v3_config import DeepseekV3Config, refuse_quantized
from dynamo_tokenspeed.model.families.deepseek_v3_names import DeepseekV3Names

# What the names of the language model's tensors begin with, and the head's name.
PUBLISHED_NAMES = ("language_model.model.", "language_model.lm_head.weight")
TRANSFORMERS_NAMES = ("model.language_model.", "lm_head.weight")
TEXT_MODEL_TYPES = ("kimi_k2", "deepseek_v3")
# As published, and as `transformers` saves them.
VISION_PREFIXES = (
    "vision_tower.",
    "mm_projector.",
    "model.vision_tower.",
    "model.mm_projector.",
)


class KimiK25Names(DeepseekV3Names):
    def left_out(self, name: str) -> str | None:
        if name.startswith(VISION_PREFIXES):
            return "vision tower and projector; this model serves text"
        return super().left_out(name)


class KimiK25ForConditionalGeneration(DeepseekV3ForCausalLM):
    names = KimiK25Names

    @staticmethod
    def read_config(file: ConfigFile) -> DeepseekV3Config:
        refuse_quantized(file)
        text = file.nested("text_config")
        if text is None:
            raise ModelError(f"{file.path} has no text_config, where Kimi K2.5 keeps its text half")
        if "model_type" in text:
            text.choice("model_type", TEXT_MODEL_TYPES, "kimi_k2")
        # The text half speaks for itself; the outer object only where it is silent.
        said_outside: dict[str, Any] = {}
        if "tie_word_embeddings" not in text:
            said_outside["tie_word_embeddings"] = file.flag("tie_word_embeddings", True)
        if text.dtype() is None:
            said_outside |= {key: file.values.get(key) for key in ("dtype", "torch_dtype")}
        text = replace(text, values={**text.values, **said_outside})
        config = DeepseekV3Config.from_file(text, *PUBLISHED_NAMES)
        return replace(config, architecture=file.architecture())

    @staticmethod
    def reconcile(config: DeepseekV3Config, found: Mapping[str, TensorInfo]) -> DeepseekV3Config:
        body, head = TRANSFORMERS_NAMES
        if any(name.startswith(body) for name in found):
            config = replace(config, body_prefix=body, head_name=head)
        return DeepseekV3ForCausalLM.reconcile(config, found)
