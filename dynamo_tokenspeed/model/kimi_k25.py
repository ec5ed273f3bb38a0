# SPDX-License-Identifier: MIT
"""The text half of Kimi K2.5: a DeepSeek-V3 language model inside a vision-language checkpoint.

config.json nests the language model under `text_config`; its tensors are named
`language_model.model.…` and `language_model.lm_head.weight`. The vision tower and the projector
are not loaded.
"""

from __future__ import annotations

from dataclasses import replace

from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.deepseek_v3 import DeepseekV3ForCausalLM
from dynamo_tokenspeed.model.deepseek_v3_config import DeepseekV3Config, refuse_quantized
from dynamo_tokenspeed.model.errors import ModelError

TEXT_MODEL_TYPES = ("kimi_k2", "deepseek_v3")
# As published, and as `transformers` saves them.
VISION_PREFIXES = (
    "vision_tower.",
    "mm_projector.",
    "model.vision_tower.",
    "model.mm_projector.",
)


class KimiK25ForConditionalGeneration(DeepseekV3ForCausalLM):
    @staticmethod
    def read_config(file: ConfigFile) -> DeepseekV3Config:
        refuse_quantized(file)
        text = file.nested("text_config")
        if text is None:
            raise ModelError(f"{file.path} has no text_config, where Kimi K2.5 keeps its text half")
        text.choice("model_type", TEXT_MODEL_TYPES, "kimi_k2")
        config = DeepseekV3Config.from_file(text, weights_prefix="language_model.")
        return replace(
            config,
            architecture=file.architecture(),
            dtype=file.dtype() or config.dtype,
            tie_word_embeddings=file.flag("tie_word_embeddings", config.tie_word_embeddings),
        )

    def left_out(self, name: str) -> str | None:
        if name.startswith(VISION_PREFIXES):
            return "vision tower and projector; this model serves text"
        return super().left_out(name)
