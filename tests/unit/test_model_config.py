# SPDX-License-Identifier: MIT
"""config.json: both spellings are read, and what cannot be served is refused in one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from dynamo_tokenspeed.model import Checkpoint, ModelError, resolve_dtype
from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.families.deepseek_v3_config import DeepseekV3Config
from dynamo_tokenspeed.model.layers.rope import Rope
from dynamo_tokenspeed.tools.random_geometry import Geometry, deepseek_v3_config, kimi_k25_config

YARN = Geometry(yarn_factor=8.0, yarn_mscale=0.7)


def write(directory: Path, config: dict[str, Any]) -> Path:
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def valid(geometry: Geometry = Geometry()) -> dict[str, Any]:  # noqa: B008 - frozen
    return deepseek_v3_config(geometry, "float32", 0)


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as failure:
        Checkpoint(directory)
    assert "\n" not in str(failure.value)
    return str(failure.value)


def test_the_classic_keys_and_those_of_transformers_5_mean_the_same(tmp_path: Path) -> None:
    both = valid(YARN)
    classic = {key: value for key, value in both.items() if key != "rope_parameters"}
    classic["rope_scaling"].pop("rope_theta")
    newer = {k: v for k, v in both.items() if k not in ("rope_scaling", "rope_theta")}
    configs = [Checkpoint(write(tmp_path, c)).config for c in (both, classic, newer)]
    assert isinstance(configs[0], DeepseekV3Config)
    assert configs[0].attention.rope.yarn is not None
    assert configs[0] == configs[1] == configs[2]


@pytest.mark.parametrize(
    ("geometry", "changes"),
    [
        (Geometry(), {}),
        (YARN, {}),
        (YARN, {"factor": 1.0}),
        (YARN, {"mscale": None, "mscale_all_dim": None}),
        (YARN, {"mscale_all_dim": 0.0}),
        (YARN, {"attention_factor": 1.3}),
        (YARN, {"beta_fast": 8.0, "beta_slow": 2.0}),
        (YARN, {"beta_fast": 1.0, "beta_slow": 1.0}),
        (YARN, {"truncate": False}),
        (YARN, {"original_max_position_embeddings": 2}),
        (Geometry(qk_rope_head_dim=64, yarn_factor=32.0, rope_theta=50000.0), {}),
    ],
)
def test_rope_tables_are_those_of_transformers(
    tmp_path: Path, geometry: Geometry, changes: dict[str, Any]
) -> None:
    config = valid(geometry) | {"rope_scaling": None}
    config["rope_parameters"] |= changes
    rope = Rope.from_config(
        ConfigFile.read(write(tmp_path, config)),
        geometry.qk_rope_head_dim,
        geometry.max_position_embeddings,
    )
    their_config = transformers.AutoConfig.from_pretrained(tmp_path)
    theirs = transformers.models.deepseek_v3.modeling_deepseek_v3.DeepseekV3RotaryEmbedding(
        their_config
    )
    half = geometry.qk_rope_head_dim // 2
    cos, sin = theirs(torch.zeros(1), torch.arange(100)[None])

    table = rope.table(100)

    torch.testing.assert_close(table[:, :half], cos[0, :, :half])
    torch.testing.assert_close(table[:, half:], sin[0, :, :half])


def test_the_text_half_of_kimi_k25_is_read_from_text_config(tmp_path: Path) -> None:
    nested = Checkpoint(write(tmp_path, kimi_k25_config(YARN, "bfloat16", 0))).config
    assert nested.architecture == "KimiK25ForConditionalGeneration"
    assert nested.dtype == torch.bfloat16
    assert nested.vocab_size == YARN.vocab_size


def test_the_published_geometry_of_kimi_k2_is_read(tmp_path: Path) -> None:
    published = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "attention_bias": False,
        "aux_loss_alpha": 0.001,
        "first_k_dense_replace": 1,
        "hidden_act": "silu",
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "kv_lora_rank": 512,
        "max_position_embeddings": 131072,
        "model_type": "kimi_k2",
        "moe_intermediate_size": 2048,
        "moe_layer_freq": 1,
        "n_group": 1,
        "n_routed_experts": 384,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_attention_heads": 64,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 61,
        "num_key_value_heads": 64,
        "num_nextn_predict_layers": 0,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "beta_fast": 1.0,
            "beta_slow": 1.0,
            "factor": 32.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 4096,
            "type": "yarn",
        },
        "rope_theta": 50000.0,
        "routed_scaling_factor": 2.827,
        "scoring_func": "sigmoid",
        "tie_word_embeddings": False,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "torch_dtype": "bfloat16",
        "v_head_dim": 128,
        "vocab_size": 163840,
    }
    config = Checkpoint(write(tmp_path, published)).config
    assert isinstance(config, DeepseekV3Config)
    assert config.attention.softmax_scale == pytest.approx(
        192**-0.5 * (0.1 * math.log(32) + 1) ** 2
    )
    assert config.moe is not None
    assert (config.moe.num_groups, config.moe.topk_groups) == (1, 1)
    assert config.moe_of_layer(0) is None
    assert config.moe_of_layer(60) is not None
    assert config.kv_spec.bytes_per_page(1, torch.bfloat16) == 61 * 576 * 2


def test_the_kv_pool_page_counts_latent_and_rope_key_of_every_layer(tmp_path: Path) -> None:
    spec = Checkpoint(write(tmp_path, valid())).config.kv_spec
    assert spec.bytes_per_page(16, torch.bfloat16) == 3 * 16 * (32 + 8) * 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "DeepseekV3ForCausalLM"),
        ({"architectures": []}, "architectures"),
        ({"architectures": None}, "architectures"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"hidden_act": "gelu"}, "silu"),
        ({"topk_method": "greedy"}, "noaux_tc"),
        ({"scoring_func": "softmax"}, "sigmoid"),
        ({"hidden_size": 0}, "hidden_size 0"),
        ({"hidden_size": "64"}, "hidden_size '64'"),
        ({"hidden_size": None}, "no hidden_size"),
        ({"num_hidden_layers": -1}, "num_hidden_layers -1"),
        ({"num_hidden_layers": True}, "num_hidden_layers True"),
        ({"vocab_size": 1.5}, "vocab_size 1.5"),
        ({"rms_norm_eps": 0}, "rms_norm_eps 0"),
        ({"qk_rope_head_dim": 7}, "even"),
        ({"n_group": 3}, "n_group 3"),
        ({"n_group": 8}, "at least 2 experts"),
        ({"topk_group": 3}, "topk_group 3"),
        ({"num_experts_per_tok": 5}, "num_experts_per_tok 5"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_scaling": {"type": "yarn", "factor": -2.0}}, "factor -2.0"),
        ({"rope_scaling": 4}, "rope_scaling 4"),
        ({"torch_dtype": "int8", "dtype": None}, "int8"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings 'no'"),
    ],
)
def test_a_config_that_cannot_be_served_is_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    sentence = refusal(write(tmp_path, valid() | change))
    assert says in sentence
    assert "config.json" in sentence


def test_kimi_k25_without_text_config_or_with_quantized_weights_is_refused(tmp_path: Path) -> None:
    config = kimi_k25_config(Geometry(), "float32", 0)
    assert "text_config" in refusal(write(tmp_path, config | {"text_config": None}))
    config["text_config"]["quantization_config"] = {"quant_method": "compressed-tensors"}
    assert "compressed-tensors" in refusal(write(tmp_path, config))


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    assert "config.json" in refusal(tmp_path)


def test_a_missing_directory_and_a_missing_config_are_told_apart(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere")
    assert "has no config.json" in refusal(tmp_path)


def test_auto_is_the_dtype_of_the_checkpoint_and_a_name_is_itself(tmp_path: Path) -> None:
    config = Checkpoint(write(tmp_path, valid() | {"dtype": "bfloat16"})).config
    assert resolve_dtype(config) == torch.bfloat16
    assert resolve_dtype(config, "float32") == torch.float32


def test_float16_is_loaded_but_not_computed_in(tmp_path: Path) -> None:
    config = Checkpoint(write(tmp_path, valid() | {"dtype": "float16"})).config
    with pytest.raises(ModelError, match="float32 or bfloat16"):
        resolve_dtype(config)
    assert resolve_dtype(config, "bfloat16") == torch.bfloat16
