# SPDX-License-Identifier: MIT
"""The models that are served. A family says which layers it has, in which order, and what its
checkpoints call them."""

from dynamo_tokenspeed.model.causal_lm import CausalLM
from dynamo_tokenspeed.model.families.deepseek_v3 import DeepseekV3ForCausalLM
from dynamo_tokenspeed.model.families.kimi_k25 import KimiK25ForConditionalGeneration
from dynamo_tokenspeed.model.families.null import NullForCausalLM

# The first name in config.json's `architectures` → the class that computes it.
FAMILIES: dict[str, type[CausalLM]] = {
    "DeepseekV3ForCausalLM": DeepseekV3ForCausalLM,
    "KimiK25ForConditionalGeneration": KimiK25ForConditionalGeneration,
    "Kimi_K25ForConditionalGeneration": KimiK25ForConditionalGeneration,  # as transformers saves it
    "NullForCausalLM": NullForCausalLM,
}
