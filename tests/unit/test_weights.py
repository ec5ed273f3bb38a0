# SPDX-License-Identifier: MIT
"""Loading a checkpoint: every tensor lands where it belongs, or one sentence says why not."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import ts_kernels
from safetensors.torch import load_file, save_file
from torch import Tensor

from dynamo_tokenspeed.model import CausalLM, Checkpoint, ModelError, WeightsError, load_model
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint

INDEX = "model.safetensors.index.json"
KV_B = "model.layers.1.self_attn.kv_b_proj.weight"
TINY = {"tokenizer": False, "vocab_size": 32, "num_hidden_layers": 2, "std": 0.1}


def load(directory: Path, dtype: torch.dtype = torch.float32, on_progress: Any = None) -> CausalLM:
    ops = ts_kernels.bind("cpu", dtype)
    return load_model(Checkpoint(directory), "cpu", dtype, ops, on_progress)


def single_file(directory: Path, **geometry: Any) -> Path:
    return write_random_checkpoint(directory, **{**TINY, **geometry})


def sharded(directory: Path) -> Path:
    return write_random_checkpoint(directory, shards=3, **TINY)


def change_tensors(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def change_index(directory: Path, change: Callable[[dict[str, str]], object]) -> None:
    index = json.loads((directory / INDEX).read_text())
    change(index["weight_map"])
    (directory / INDEX).write_text(json.dumps(index))


def shard_of(directory: Path, name: str) -> Path:
    index = json.loads((directory / INDEX).read_text())
    return directory / index["weight_map"][name]


def sentence_of_failure(directory: Path) -> str:
    with pytest.raises(WeightsError) as failure:
        load(directory)
    sentence = str(failure.value)
    assert "\n" not in sentence
    return sentence


def test_shards_and_a_single_file_load_the_same_parameters(tmp_path: Path) -> None:
    one, many = load(single_file(tmp_path / "1")), load(sharded(tmp_path / "3"))
    assert len(list((tmp_path / "3").glob("*.safetensors"))) == 3
    assert torch.equal(one.layers[1].attention.w_kv_b, many.layers[1].attention.w_kv_b)
    assert torch.equal(one.layers[1].mlp.w_gate_up, many.layers[1].mlp.w_gate_up)
    assert torch.equal(one.head, many.head)


def test_decode_reads_views_of_the_one_copy_of_kv_b(tmp_path: Path) -> None:
    attention = load(single_file(tmp_path)).layers[0].attention
    shared = attention.w_kv_b.untyped_storage().data_ptr()
    assert attention.w_uk.untyped_storage().data_ptr() == shared
    assert attention.w_uv.untyped_storage().data_ptr() == shared


def test_weight_bytes_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    directory = single_file(tmp_path)
    in_file = sum(t.nbytes for t in load_file(directory / "model.safetensors").values())
    assert load(directory).weight_bytes == in_file


def test_a_bf16_checkpoint_is_widened_to_fp32_exactly(tmp_path: Path) -> None:
    directory = single_file(tmp_path, dtype="bfloat16")
    kept = load_file(directory / "model.safetensors")["lm_head.weight"]
    assert torch.equal(load(directory, torch.float32).head, kept.float())


def test_the_routing_bias_stays_in_fp32_in_a_bf16_model(tmp_path: Path) -> None:
    directory = single_file(tmp_path, dtype="bfloat16")
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    kept = load_file(directory / "model.safetensors")[name]
    assert torch.equal(load(directory, torch.bfloat16).layers[1].mlp.router_bias, kept)


def test_progress_counts_every_byte_once_and_ends_at_the_total(tmp_path: Path) -> None:
    directory = sharded(tmp_path)
    seen: list[tuple[int, int, str]] = []
    load(directory, on_progress=lambda *step: seen.append(step))
    sizes = {
        name: tensor.nbytes
        for file in directory.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    assert sorted(name for _, _, name in seen) == sorted(sizes)
    assert {total for _, total, _ in seen} == {sum(sizes.values())}
    done = [0] + [done for done, _, _ in seen]
    assert [b - a for a, b in pairwise(done)] == [sizes[name] for _, _, name in seen]


def test_vision_tensors_of_kimi_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = write_random_checkpoint(tmp_path, arch="kimi_k25", **TINY)
    with caplog.at_level(logging.INFO):
        load(directory)
    assert "4 tensors" in caplog.text
    assert "vision tower and projector" in caplog.text


def test_a_missing_tensor_is_named_with_its_shape(tmp_path: Path) -> None:
    directory = single_file(tmp_path)
    change_tensors(directory, lambda tensors: tensors.pop(KV_B))
    sentence = sentence_of_failure(directory)
    assert f"{KV_B} [128, 32] is missing" in sentence


def test_a_misshapen_tensor_is_named_with_both_shapes_and_its_file(tmp_path: Path) -> None:
    directory = single_file(tmp_path)
    change_tensors(directory, lambda tensors: tensors.update({KV_B: torch.ones(128, 31)}))
    sentence = sentence_of_failure(directory)
    assert KV_B in sentence
    assert "[128, 31]" in sentence
    assert "[128, 32]" in sentence
    assert "model.safetensors" in sentence


def test_a_transposed_tensor_of_the_right_size_is_refused(tmp_path: Path) -> None:
    directory = single_file(tmp_path)
    change_tensors(directory, lambda t: t.update({KV_B: t[KV_B].t().contiguous()}))
    assert "[32, 128]" in sentence_of_failure(directory)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float8_e4m3fn, torch.float64])
def test_a_tensor_of_a_dtype_that_is_not_loaded_is_named(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    directory = single_file(tmp_path)
    change_tensors(directory, lambda t: t.update({KV_B: torch.zeros(128, 32, dtype=dtype)}))
    sentence = sentence_of_failure(directory)
    assert KV_B in sentence
    assert "F32, BF16, F16" in sentence


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.indexer.wk.weight",
        "model.layers.2.input_layernorm.weight",
        "vision_tower.patch_embed.proj.weight",
    ],
)
def test_a_tensor_without_a_place_in_the_model_is_named(tmp_path: Path, name: str) -> None:
    directory = single_file(tmp_path)
    change_tensors(directory, lambda tensors: tensors.update({name: torch.ones(3)}))
    assert f"tensor {name} [3]" in sentence_of_failure(directory)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    directory = sharded(tmp_path)
    shard = shard_of(directory, KV_B)
    shard.write_bytes(shard.read_bytes()[:keep])
    sentence = sentence_of_failure(directory)
    assert str(shard) in sentence
    assert "truncated" in sentence


def test_a_missing_shard_is_named_with_what_it_held(tmp_path: Path) -> None:
    directory = sharded(tmp_path)
    shard = shard_of(directory, "lm_head.weight")
    shard.unlink()
    sentence = sentence_of_failure(directory)
    assert str(shard) in sentence
    assert "is missing" in sentence


def test_a_tensor_that_the_index_forgets_is_named(tmp_path: Path) -> None:
    directory = sharded(tmp_path)
    change_index(directory, lambda weight_map: weight_map.pop(KV_B))
    sentence = sentence_of_failure(directory)
    assert KV_B in sentence
    assert INDEX in sentence


def test_a_tensor_that_is_not_in_the_file_the_index_names_is_named(tmp_path: Path) -> None:
    directory = sharded(tmp_path)
    other = shard_of(directory, "model.embed_tokens.weight").name
    assert other != shard_of(directory, "lm_head.weight").name
    change_index(directory, lambda weight_map: weight_map.update({"lm_head.weight": other}))
    assert "lm_head.weight" in sentence_of_failure(directory)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    directory = sharded(tmp_path)
    (directory / INDEX).write_text(text)
    assert INDEX in sentence_of_failure(directory)


def test_an_index_does_not_reach_outside_its_directory(tmp_path: Path) -> None:
    directory = sharded(tmp_path / "model")
    single_file(tmp_path / "other")
    change_index(directory, lambda m: m.update({KV_B: "../other/model.safetensors"}))
    assert "../other/model.safetensors" in sentence_of_failure(directory)


def test_more_weights_than_memory_are_refused_with_their_size(tmp_path: Path) -> None:
    directory = single_file(tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config["max_position_embeddings"] = 10**15
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does not fit"):
        load(directory)


def test_a_directory_without_weights_says_what_was_looked_for(tmp_path: Path) -> None:
    directory = single_file(tmp_path)
    (directory / "model.safetensors").unlink()
    assert "no *.safetensors" in sentence_of_failure(directory)
    (directory / "pytorch_model.bin").touch()
    assert ".bin files only" in sentence_of_failure(directory)
