# SPDX-License-Identifier: MIT
"""config.json never overrides what the checkpoint holds.

A tensor that is there is used, or refused by a sentence that names the key it contradicts; layouts
in which the same weights are stored are told by the tensors' names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import ts_kernels
from model_driver import ModelDriver
from oracle import Oracle
from safetensors.torch import load_file, save_file
from torch import Tensor

from dynamo_tokenspeed.model import CausalLM, Checkpoint, ModelError, load_model
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint

TOKENS = [5, 9, 2, 30, 17, 8, 1]
Tensors = dict[str, Tensor]


def checkpoint(directory: Path, **geometry: Any) -> Path:
    return write_random_checkpoint(
        directory, tokenizer=False, **{"vocab_size": 32, "std": 0.1, **geometry}
    )


def change_config(directory: Path, **changes: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_tensors(directory: Path, change: Callable[[Tensors], object]) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def load(directory: Path, dtype: torch.dtype = torch.float32) -> CausalLM:
    return load_model(Checkpoint(directory), "cpu", dtype, ts_kernels.bind("cpu", dtype))


def logits(directory: Path) -> Tensor:
    driver = ModelDriver(load(directory), page_size=4)
    return driver.step([(driver.sequence(TOKENS), len(TOKENS))])[0]


def assert_served_as_transformers_does(directory: Path) -> None:
    expected = Oracle(directory).logits(TOKENS)[-1]
    torch.testing.assert_close(logits(directory), expected, rtol=1e-4, atol=1e-4)


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as failure:
        load(directory)
    sentence = str(failure.value)
    assert "\n" not in sentence
    assert "fetch the checkpoint again" not in sentence
    return sentence


# The head and the embedding


@pytest.mark.parametrize("arch", ["deepseek_v3", "kimi_k25"])
def test_a_head_that_is_there_is_used_whatever_config_json_says_of_tying(
    arch: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = checkpoint(tmp_path, arch=arch)
    untied = logits(directory)
    change = {"tie_word_embeddings": True}
    if arch == "kimi_k25":
        text = json.loads((directory / "config.json").read_text())["text_config"]
        change = change | {"text_config": text | change}
    change_config(directory, **change)
    with caplog.at_level(logging.INFO):
        assert torch.equal(logits(directory), untied)
    assert "correct tie_word_embeddings" in caplog.text
    assert_served_as_transformers_does(directory)


def test_a_head_that_equals_the_embedding_shares_its_memory_where_config_json_ties_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = checkpoint(tmp_path, tie_word_embeddings=True)
    change_tensors(
        directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    )
    with caplog.at_level(logging.INFO):
        model: Any = load(directory)
    assert model.head is model.embedding
    assert "the head equals the embedding" in caplog.text
    assert_served_as_transformers_does(directory)


def test_a_head_of_another_shape_than_the_embedding_is_refused_even_when_tied(
    tmp_path: Path,
) -> None:
    directory = checkpoint(tmp_path, tie_word_embeddings=True)
    change_tensors(directory, lambda t: t.update({"lm_head.weight": torch.ones(31, 64)}))
    assert "vocab_size 32" in refusal(directory)


def test_without_a_head_and_without_tying_the_refusal_names_the_key(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path)
    change_tensors(directory, lambda t: t.pop("lm_head.weight"))
    assert "tie_word_embeddings false" in refusal(directory)


# What one key says against the tensors


@pytest.mark.parametrize(
    ("geometry", "change", "says"),
    [
        ({}, {"q_lora_rank": None}, "q_lora_rank null"),
        ({}, {"q_lora_rank": 16}, "q_lora_rank 16"),
        ({"q_lora_rank": None}, {"q_lora_rank": 32}, "q_lora_rank 32"),
        ({"attention_bias": True}, {"attention_bias": False}, "attention_bias false"),
        ({}, {"attention_bias": True}, "attention_bias true"),
        ({}, {"num_hidden_layers": 2}, "num_hidden_layers 2"),
        ({}, {"num_hidden_layers": 2, "num_nextn_predict_layers": 1}, "num_hidden_layers 2"),
        ({}, {"num_hidden_layers": 4}, "num_hidden_layers 4"),
        ({}, {"n_shared_experts": None}, "n_shared_experts null"),
        ({}, {"n_shared_experts": 2}, "n_shared_experts 2"),
        ({"n_shared_experts": None}, {"n_shared_experts": 1}, "n_shared_experts 1"),
        ({}, {"n_routed_experts": 4}, "n_routed_experts 4"),
        ({}, {"n_routed_experts": 16}, "n_routed_experts 16"),
        ({}, {"n_routed_experts": None}, "n_routed_experts null"),
        ({}, {"first_k_dense_replace": 0}, "first_k_dense_replace 0"),
        ({}, {"first_k_dense_replace": 2}, "first_k_dense_replace 2"),
        ({}, {"moe_layer_freq": 2}, "moe_layer_freq 2"),
        ({}, {"vocab_size": 16}, "vocab_size 16"),
        ({}, {"vocab_size": 64}, "vocab_size 64"),
        ({}, {"hidden_size": 32}, "hidden_size 32"),
        ({}, {"intermediate_size": 64}, "intermediate_size 64"),
        ({}, {"moe_intermediate_size": 16}, "moe_intermediate_size 16"),
        ({}, {"kv_lora_rank": 16}, "kv_lora_rank 16"),
        ({}, {"v_head_dim": 8}, "v_head_dim 8"),
        ({}, {"qk_nope_head_dim": 8}, "qk_nope_head_dim 8"),
        ({}, {"qk_rope_head_dim": 4}, "qk_rope_head_dim 4"),
        ({}, {"num_attention_heads": 2}, "num_attention_heads 2"),
    ],
)
@pytest.mark.parametrize("arch", ["deepseek_v3", "kimi_k25"])
def test_a_key_that_contradicts_the_tensors_is_named_with_its_value(
    arch: str, geometry: dict[str, Any], change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    directory = checkpoint(tmp_path, arch=arch, **geometry)
    if arch == "kimi_k25":
        text = json.loads((directory / "config.json").read_text())["text_config"]
        change = {"text_config": text | change}
    change_config(directory, **change)
    sentence = refusal(directory)
    assert says in sentence
    assert "correct config.json" in sentence


def test_rope_frequencies_saved_with_the_weights_are_compared_with_those_of_config_json(
    tmp_path: Path,
) -> None:
    directory = checkpoint(tmp_path, rope_theta=50000.0, yarn_factor=4.0)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    saved = (1 / 50000.0 ** (torch.arange(0, 8, 2) / 8)).bfloat16()
    change_tensors(directory, lambda t: t.update({name: saved}))
    load(directory)
    scaling = json.loads((directory / "config.json").read_text())["rope_scaling"]
    change_config(directory, rope_scaling=scaling | {"rope_theta": 10000.0})
    sentence = refusal(directory)
    assert name in sentence
    assert "rope_theta 10000.0" in sentence


# Layers that predict more than one token


def add_prediction_layer(directory: Path, layer: int) -> None:
    """A multi-token prediction layer as published: a decoder layer and what precedes it."""

    def add(tensors: Tensors) -> None:
        prefix = f"model.layers.{layer}."
        for name in [n for n in tensors if n.startswith("model.layers.2.")]:
            tensors[name.replace("model.layers.2.", prefix)] = tensors[name].clone()
        for name in ("eh_proj", "enorm", "hnorm", "embed_tokens", "shared_head.head"):
            tensors[f"{prefix}{name}.weight"] = torch.ones(3)

    change_tensors(directory, add)


@pytest.mark.parametrize("stated", [None, 0, 1])
def test_prediction_layers_are_known_by_their_tensors_and_skipped_with_one_line(
    stated: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = checkpoint(tmp_path)
    without = logits(directory)
    add_prediction_layer(directory, 3)
    change_config(directory, num_nextn_predict_layers=stated)
    with caplog.at_level(logging.INFO):
        assert torch.equal(logits(directory), without)
    lines = [r.getMessage() for r in caplog.records if "not loaded" in r.getMessage()]
    assert len(lines) == 1
    assert "multi-token prediction" in lines[0]


def test_a_decoder_layer_past_num_hidden_layers_is_refused_beside_a_prediction_layer(
    tmp_path: Path,
) -> None:
    directory = checkpoint(tmp_path)
    add_prediction_layer(directory, 3)
    change_config(directory, num_hidden_layers=2, num_nextn_predict_layers=2)
    sentence = refusal(directory)
    assert "num_hidden_layers 2" in sentence
    assert "is layer 2" in sentence


def test_a_prediction_layer_counted_as_a_decoder_layer_is_refused(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path)
    add_prediction_layer(directory, 3)
    change_config(directory, num_hidden_layers=4)
    sentence = refusal(directory)
    assert "num_hidden_layers 4" in sentence
    assert "is layer 2" in sentence


# Layouts


@pytest.mark.parametrize("arch", ["deepseek_v3", "kimi_k25"])
@pytest.mark.parametrize("shard_size", ["5GB", "100KB"])
def test_a_checkpoint_in_the_layout_that_transformers_keeps_in_memory_is_served(
    arch: str, shard_size: str, tmp_path: Path
) -> None:
    published = checkpoint(tmp_path / "published", arch=arch)
    oracle = Oracle(published)
    oracle.model.save_pretrained(
        tmp_path / "fused", save_original_format=False, max_shard_size=shard_size
    )
    names = {n for f in (tmp_path / "fused").glob("*.safetensors") for n in load_file(f)}
    assert any(name.endswith("mlp.experts.gate_up_proj") for name in names)
    assert torch.equal(logits(tmp_path / "fused"), logits(published))
    assert_served_as_transformers_does(tmp_path / "fused")


def fuse_experts(tensors: Tensors) -> None:
    prefix = "model.layers.1.mlp.experts."

    def stack(name: str) -> Tensor:
        return torch.stack([tensors.pop(f"{prefix}{i}.{name}.weight") for i in range(8)])

    gate_up = torch.cat([stack("gate_proj"), stack("up_proj")], dim=1)
    tensors |= {prefix + "gate_up_proj": gate_up, prefix + "down_proj": stack("down_proj")}


def test_fused_experts_give_the_bits_of_the_same_experts_one_by_one(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path)
    one_by_one = logits(directory)
    change_tensors(directory, fuse_experts)  # in one layer; the other stays as it is
    assert torch.equal(logits(directory), one_by_one)


def test_fused_experts_that_are_transposed_are_refused_with_both_shapes(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path, moe_intermediate_size=24)
    change_tensors(directory, fuse_experts)
    name = "model.layers.1.mlp.experts.gate_up_proj"
    change_tensors(directory, lambda t: t.update({name: t[name].transpose(1, 2).contiguous()}))
    sentence = refusal(directory)
    assert "[8, 64, 48]" in sentence
    assert "[8, 48, 64]" in sentence


def test_experts_that_are_stored_in_both_layouts_are_refused(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path)
    kept = load_file(directory / "model.safetensors")
    change_tensors(directory, fuse_experts)
    change_tensors(directory, lambda t: t.update({n: v for n, v in kept.items() if n not in t}))
    assert "gate_up_proj holds all experts" in refusal(directory)


def test_a_layout_that_is_not_known_is_told_by_what_lies_there_instead(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path)
    old, new = "model.layers.0.self_attn.q_b_proj.weight", "model.layers.0.self_attn.wq_b.weight"
    change_tensors(directory, lambda t: t.update({new: t.pop(old)}))
    sentence = refusal(directory)
    assert old in sentence
    assert new in sentence


# Files


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    directory = checkpoint(tmp_path, shards=3)
    (directory / "model.safetensors.index.json").unlink()
    return directory


def test_shards_without_an_index_are_read_by_their_headers_and_one_line_says_so(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = logits(shards)
    lines = [r.getMessage() for r in caplog.records if "index.json" in r.getMessage()]
    assert len(lines) == 1
    assert "all of its 3 files" in lines[0]
    assert torch.equal(found, logits(checkpoint(tmp_path / "one")))


@pytest.mark.parametrize("number", [1, 3])
def test_a_missing_shard_without_an_index_is_named(shards: Path, number: int) -> None:
    name = f"model-0000{number}-of-00003.safetensors"
    (shards / name).unlink()
    sentence = refusal(shards)
    assert f"{name} is missing" in sentence
    assert "fetch it" in sentence


def test_a_name_in_two_files_without_an_index_is_refused_with_both(shards: Path) -> None:
    name = "model.norm.weight"
    save_file({name: torch.ones(64)}, shards / "extra.safetensors")
    sentence = refusal(shards)
    assert name in sentence
    assert "extra.safetensors" in sentence
    assert "-of-00003" in sentence


def test_files_under_other_names_are_read_like_shards(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path)
    expected = logits(directory)
    (directory / "model.safetensors").rename(directory / "weights.safetensors")
    assert torch.equal(logits(directory), expected)


def test_an_index_beside_a_single_file_that_it_does_not_name_is_refused(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path, shards=2)
    save_file({"a": torch.ones(1)}, directory / "model.safetensors")
    sentence = refusal(directory)
    assert "model.safetensors.index.json" in sentence
    assert "remove the one" in sentence


def test_an_index_that_names_a_single_file_is_followed(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path)
    expected = logits(directory)
    names = load_file(directory / "model.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(logits(directory), expected)


@pytest.mark.parametrize(
    ("stored", "served", "told"),
    [("float32", "bfloat16", True), ("bfloat16", "float32", False), ("float32", "float32", False)],
)
def test_weights_that_are_rounded_to_the_dtype_that_is_served_are_told(
    stored: str, served: str, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = checkpoint(tmp_path, dtype=stored)
    with caplog.at_level(logging.INFO):
        load(directory, getattr(torch, served))
    assert ("are rounded to" in caplog.text) is told


def test_what_transformers_loads_without_a_complaint_is_served(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path, tie_word_embeddings=True)
    transformers.DeepseekV3ForCausalLM.from_pretrained(directory).save_pretrained(tmp_path / "b")
    assert_served_as_transformers_does(tmp_path / "b")
