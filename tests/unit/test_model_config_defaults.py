# SPDX-License-Identifier: MIT
"""A key that config.json leaves out is what `transformers` takes it for, or is refused by name.

Nothing that changes a result is a silent default: each key is deleted (and made null) in a complete
config, and what this version then reads is held against what `transformers`' config class yields.
"""

from __future__ import annotations

import copy
import json
import logging
import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import ts_kernels
from model_driver import ModelDriver
from oracle import Oracle
from transformers.models.deepseek_v3 import modeling_deepseek_v3

from dynamo_tokenspeed.model import Checkpoint, ModelError, load_model, resolve_dtype
from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.families.deepseek_v3 import DeepseekV3ForCausalLM
from dynamo_tokenspeed.model.families.deepseek_v3_config import DeepseekV3Config
from dynamo_tokenspeed.model.families.kimi_k25 import KimiK25ForConditionalGeneration
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint
from dynamo_tokenspeed.tools.random_geometry import Geometry, deepseek_v3_config, kimi_k25_config

# Every value that has a default here differs from it, so that a wrong default shows.
GEOMETRY = Geometry(
    n_routed_experts=16,
    n_shared_experts=2,
    n_group=4,
    topk_group=2,
    norm_topk_prob=False,
    routed_scaling_factor=1.5,
    rms_norm_eps=1e-5,
    rope_theta=50000.0,
    rope_interleave=False,
    attention_bias=True,
    tie_word_embeddings=True,
    yarn_factor=8.0,
    yarn_mscale=0.7,
)
# Read by the frontend, the sampler or training, or without a meaning in this model.
WITHOUT_EFFECT = {
    "architectures",
    "model_type",
    "num_key_value_heads",  # the cache holds one latent, whatever it says
    "num_nextn_predict_layers",  # the checkpoint's tensors say which layers these are
    "num_mtp_layers",
    "attention_dropout",
    "initializer_range",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "output_router_logits",
    "pretraining_tp",
    "dtype",  # test_the_dtype_that_is_not_stated_is_that_of_the_weights
    "torch_dtype",
}
ROPE = {"factor": 8.0, "beta_fast": 16.0, "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 0.9}
ROPE |= {"original_max_position_embeddings": 256, "truncate": False}
FORMS: dict[str, dict[str, Any]] = {
    "classic": {
        "rope_theta": 50000.0,
        "rope_scaling": {"type": "yarn", **ROPE},
    },
    "rope_parameters": {
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 50000.0, **ROPE},
    },
    "attention_factor": {
        "rope_theta": 50000.0,
        "rope_scaling": {"type": "yarn", "attention_factor": 1.3, **ROPE},
    },
    "plain": {"rope_theta": 50000.0, "rope_scaling": None},
    "plain rope_parameters": {"rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}},
}


def complete(form: str) -> dict[str, Any]:
    config = deepseek_v3_config(GEOMETRY, "float32", 0)
    for key in ("rope_theta", "rope_scaling", "rope_parameters"):
        del config[key]
    return copy.deepcopy(config | FORMS[form])


def keys_of(config: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all keys, those of nested objects too."""
    found = []
    for key, value in config.items():
        found.append((*path, key))
        if isinstance(value, dict):
            found += keys_of(value, (*path, key))
    return found


def changed(config: dict[str, Any], path: tuple[str, ...], how: str) -> dict[str, Any]:
    config = copy.deepcopy(config)
    place = config
    for key in path[:-1]:
        place = place[key]
    if how == "null":
        place[path[-1]] = None
    else:
        del place[path[-1]]
    return config


def read(config: dict[str, Any]) -> tuple[DeepseekV3Config, dict[str, Any]]:
    """What this version reads, and which keys it took from its defaults."""
    file = ConfigFile(Path("model"), "config.json", config)
    return DeepseekV3Config.from_file(file), file.defaulted


def meaning(config: DeepseekV3Config) -> dict[str, Any]:
    """Everything that a result depends on, under the names of `transformers`."""
    assert config.moe is not None
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "max_position_embeddings": config.max_position_embeddings,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.attention.num_heads,
        "q_lora_rank": config.attention.q_lora_rank,
        "kv_lora_rank": config.attention.kv_lora_rank,
        "qk_nope_head_dim": config.attention.qk_nope_head_dim,
        "qk_rope_head_dim": config.attention.qk_rope_head_dim,
        "v_head_dim": config.attention.v_head_dim,
        "intermediate_size": config.intermediate_size,
        "moe_intermediate_size": config.moe.intermediate_size,
        "n_routed_experts": config.moe.num_experts,
        "n_shared_experts": config.moe.num_shared,
        "num_experts_per_tok": config.moe.top_k,
        "n_group": config.moe.num_groups,
        "topk_group": config.moe.topk_groups,
        "norm_topk_prob": config.moe.norm_topk_prob,
        "routed_scaling_factor": config.moe.routed_scaling_factor,
        "first_k_dense_replace": config.first_moe_layer,
        "rms_norm_eps": config.rms_norm_eps,
        "attention_bias": config.attention.bias,
        "rope_interleave": config.attention.rope_interleave,
        "tie_word_embeddings": config.tie_word_embeddings,
        "hidden_act": "silu",  # the only one that this version computes
    }


def assert_same_meaning(ours: DeepseekV3Config, theirs: Any) -> None:
    mine = meaning(ours)
    assert mine == {key: getattr(theirs, key) for key in mine}
    rope = modeling_deepseek_v3.DeepseekV3RotaryEmbedding(theirs)
    cos, sin = rope(torch.zeros(1), torch.arange(40)[None])
    half = ours.attention.qk_rope_head_dim // 2
    expected = torch.cat([cos[0, :, :half], sin[0, :, :half]], dim=1)
    torch.testing.assert_close(ours.attention.rope.table(40), expected)
    attention = modeling_deepseek_v3.DeepseekV3Attention(theirs, 0)
    assert ours.attention.softmax_scale == pytest.approx(attention.scaling, rel=1e-9)


# Keys that are noted under the name of another that says the same.
NOTED_AS = {"rope_parameters": "rope_scaling", "rope_parameters.rope_theta": "rope_theta"}
CASES = [
    (form, path, how)
    for form in FORMS
    for path in keys_of(complete(form))
    # What no form of rope changes is tried once.
    if form == "classic" or path[0].startswith("rope_")
    for how in ("absent", "null")
]


@pytest.mark.parametrize(
    ("form", "path", "how"), CASES, ids=[f"{f}-{'.'.join(p)}-{h}" for f, p, h in CASES]
)
def test_a_key_left_out_is_the_default_of_transformers_and_noted_or_is_refused_by_name(
    form: str, path: tuple[str, ...], how: str
) -> None:
    config = complete(form)
    try:
        ours, noted = read(changed(config, path, how))
    except ModelError as refusal:
        assert path[-1].removeprefix("rope_") in str(refusal)
        return
    # Null says something where the model may go without: no query compression, no rope scaling.
    null_speaks = path[-1] in ("q_lora_rank", "rope_scaling", "rope_parameters")
    reference = changed(config, path, "null" if how == "null" and null_speaks else "absent")
    if path[-1] == "n_shared_experts" and how == "null":
        # DeepSeek's own model goes without shared experts; transformers has no word for it.
        assert ours.moe is not None
        assert ours.moe.num_shared == 0
        return
    if path[-1] == "n_routed_experts" and how == "null":
        assert ours.moe is None  # likewise: all layers are dense
        return
    assert_same_meaning(ours, transformers.DeepseekV3Config(**reference))
    if path[0] in WITHOUT_EFFECT or (null_speaks and how == "null"):
        return
    name = ".".join(path)
    assert NOTED_AS.get(name, name) in noted


@pytest.mark.parametrize("form", FORMS)
def test_a_complete_config_means_what_transformers_reads(form: str) -> None:
    ours, noted = read(complete(form))
    assert_same_meaning(ours, transformers.DeepseekV3Config(**complete(form)))
    assert all(key.startswith("rope_") for key in noted)


def test_every_key_of_the_config_class_of_transformers_is_read_or_known_to_have_no_effect() -> None:
    common = {field.name for field in fields(transformers.PreTrainedConfig)}
    own = {field.name for field in fields(transformers.DeepseekV3Config)} - common
    read_here = set(complete("classic")) | set(complete("rope_parameters"))
    assert own - read_here <= WITHOUT_EFFECT
    assert not (own & meaning(read(complete("classic"))[0]).keys()) & WITHOUT_EFFECT


def test_with_no_key_but_the_sizes_everything_is_the_default_of_transformers() -> None:
    sizes = {
        key: value
        for key, value in complete("classic").items()
        if type(value) is int and key not in {"n_group", "topk_group", "first_k_dense_replace"}
    }
    ours, noted = read(sizes)
    assert_same_meaning(ours, transformers.DeepseekV3Config(**sizes))
    assert {"n_group", "topk_group", "first_k_dense_replace", "rope_theta"} <= noted.keys()


@pytest.mark.parametrize("how", ["absent", "null"])
@pytest.mark.parametrize("key", ["n_group", "topk_group", "routed_scaling_factor", "rms_norm_eps"])
def test_a_key_left_out_of_kimis_text_config_is_the_default_of_transformers(
    key: str, how: str
) -> None:
    config = kimi_k25_config(GEOMETRY, "float32", 0)
    file = ConfigFile(Path("model"), "config.json", changed(config, ("text_config", key), how))
    ours = KimiK25ForConditionalGeneration.read_config(file)
    reference = changed(config, ("text_config", key), "absent")
    assert_same_meaning(ours, transformers.Kimi_K25Config(**reference).text_config)
    assert file.defaulted.keys() & {f"text_config.{key}"}


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (True, False, True),
        (False, True, False),
        (None, True, True),
        (None, False, False),
        (None, None, transformers.Kimi_K25Config().tie_word_embeddings),
    ],
)
def test_kimis_text_config_comes_before_the_outer_object(
    inner: bool | None, outer: bool | None, expected: bool
) -> None:
    config = kimi_k25_config(GEOMETRY, "float32", 0)
    config["text_config"]["tie_word_embeddings"] = inner
    config["tie_word_embeddings"] = outer
    config["text_config"] |= {"dtype": None, "torch_dtype": "bfloat16"}
    file = ConfigFile(Path("model"), "config.json", config)
    ours = KimiK25ForConditionalGeneration.read_config(file)
    assert ours.tie_word_embeddings is expected
    assert ours.dtype == torch.bfloat16
    assert ("tie_word_embeddings" in file.defaulted) is (inner is outer is None)


def test_kimis_outer_object_is_heard_where_text_config_is_silent() -> None:
    config = kimi_k25_config(GEOMETRY, "float32", 0)
    for key in ("dtype", "torch_dtype"):
        del config["text_config"][key]
    file = ConfigFile(Path("model"), "config.json", config | {"dtype": "bfloat16"})
    assert KimiK25ForConditionalGeneration.read_config(file).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"head_dim": 16}, "head_dim 16"),
        ({"per_layer_config": {"1": {"v_head_dim": 8}}}, "per_layer_config"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"rope_scaling": {"factor": 8.0}}, "rope_type"),
        ({"rope_scaling": {"full_attention": {"rope_type": "default"}}}, "full_attention"),
        ({"rope_scaling": {"type": "yarn", "partial_rotary_factor": 0.5, **ROPE}}, "partial"),
        ({"n_group": None, "n_routed_experts": 12}, "n_group 8 (the default"),
    ],
)
def test_a_key_that_asks_for_what_is_not_computed_is_refused_by_name(
    change: dict[str, Any], says: str
) -> None:
    with pytest.raises(ModelError) as refusal:
        read(complete("classic") | change)
    assert says in str(refusal.value)


def test_an_original_context_stated_outside_wins_as_in_transformers() -> None:
    config = complete("classic") | {"original_max_position_embeddings": 64}
    ours, _ = read(config)
    assert_same_meaning(ours, transformers.DeepseekV3Config(**config))


# Geometries that state the defaults of transformers, so that weights fit with and without the key.
STATED_DEFAULTS: dict[str, dict[str, Any]] = {
    "n_group": {"n_group": 8, "topk_group": 4, "n_routed_experts": 32},
    "topk_group": {"n_group": 8, "topk_group": 4, "n_routed_experts": 32},
    "norm_topk_prob": {},
    "routed_scaling_factor": {"routed_scaling_factor": 2.5},
    "first_k_dense_replace": {"first_k_dense_replace": 3, "num_hidden_layers": 4},
    "moe_layer_freq": {},
    "scoring_func": {},
    "topk_method": {},
    "rms_norm_eps": {},
    "rope_interleave": {},
    "rope_theta": {},
    "rope_parameters": {},
    "attention_bias": {},
    "tie_word_embeddings": {},
    "hidden_act": {},
    "rope_scaling.beta_fast": {"yarn_factor": 8.0},
    "rope_scaling.beta_slow": {"yarn_factor": 8.0},
    "rope_scaling.mscale": {"yarn_factor": 8.0, "yarn_mscale": 0.7},
    "rope_scaling.mscale_all_dim": {"yarn_factor": 8.0, "yarn_mscale": 0.7},
    "rope_scaling.rope_theta": {"yarn_factor": 8.0},
    "rope_scaling.original_max_position_embeddings": {"yarn_factor": 8.0},
}


# The checkpoint writes these under two names, so one of them may go.
STATED_TWICE = {"rope_theta", "rope_parameters", "rope_scaling.rope_theta"}


@pytest.mark.parametrize("name", [*STATED_DEFAULTS])
def test_without_the_key_the_logits_are_those_of_transformers_without_it(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_random_checkpoint(
        tmp_path, tokenizer=False, **{"vocab_size": 96, "std": 0.08, **STATED_DEFAULTS[name]}
    )
    path = tuple(name.split("."))
    config = json.loads((tmp_path / "config.json").read_text())
    if path[0] == "rope_scaling":
        del config["rope_parameters"]
    config = changed(config, path, "absent")
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokens = [random.Random(0).randrange(96) for _ in range(40)]

    with caplog.at_level(logging.INFO):
        model = load_model(
            Checkpoint(tmp_path), "cpu", torch.float32, ts_kernels.bind("cpu", torch.float32)
        )
    driver = ModelDriver(model, page_size=16)
    (ours,) = driver.step([(driver.sequence(tokens), 40)])

    theirs = Oracle(tmp_path).logits(tokens)[-1]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    lines = [r.getMessage() for r in caplog.records if "defaults count" in r.getMessage()]
    assert name in STATED_TWICE or f" {name} " in lines[0]
    assert len(lines) <= 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_that_is_not_stated_is_that_of_the_weights(
    dtype: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_random_checkpoint(tmp_path, tokenizer=False, dtype=dtype, vocab_size=32)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["dtype"], config["torch_dtype"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = getattr(torch, dtype)

    with caplog.at_level(logging.INFO):
        checkpoint = Checkpoint(tmp_path)
        served = resolve_dtype(checkpoint.config)
        model = load_model(checkpoint, "cpu", served, ts_kernels.bind("cpu", expected))

    assert isinstance(model, DeepseekV3ForCausalLM)
    assert model.embedding.dtype == expected
    assert f'dtype "{dtype}"' in caplog.text
    theirs = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert theirs.dtype == expected
