# SPDX-License-Identifier: MIT
"""What layers declare of their weights is true: a checkpoint fills all of them, and the shards that
tensor parallelism would cut compute, added up, what the whole layer computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import ts_kernels
from safetensors.torch import load_file, save_file
from torch import Tensor

from dynamo_tokenspeed.model import Checkpoint, ForwardBatch
from dynamo_tokenspeed.model.layers.mla_attention import MlaAttention, MlaConfig
from dynamo_tokenspeed.model.layers.mlp import Mlp
from dynamo_tokenspeed.model.layers.moe import Moe, MoeConfig
from dynamo_tokenspeed.model.layers.rope import Rope
from dynamo_tokenspeed.model.parameters import Parameters
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint

OPS = ts_kernels.bind("cpu", torch.float32)
HIDDEN, TOKENS, RANKS = 32, 9, 2
GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"q_lora_rank": None},
    {"attention_bias": True, "rope_interleave": False},
    {"n_shared_experts": 3},
    {"n_shared_experts": None, "tie_word_embeddings": True},
    {"first_k_dense_replace": 3},
]


def fuse_experts(directory: Path) -> None:
    """The experts of layer 1 in one tensor, as `transformers` 5 keeps them."""
    tensors = load_file(directory / "model.safetensors")
    prefix = "model.layers.1.mlp.experts."

    def stack(name: str) -> Tensor:
        return torch.stack([tensors.pop(f"{prefix}{i}.{name}.weight") for i in range(8)])

    tensors[prefix + "gate_up_proj"] = torch.cat([stack("gate_proj"), stack("up_proj")], dim=1)
    tensors[prefix + "down_proj"] = stack("down_proj")
    save_file(tensors, directory / "model.safetensors")


@pytest.mark.parametrize("fused", [False, True], ids=["one by one", "fused"])
@pytest.mark.parametrize("arch", ["deepseek_v3", "kimi_k25"])
@pytest.mark.parametrize("number", range(len(GEOMETRIES)))
def test_every_element_of_every_weight_is_filled_by_exactly_one_tensor(
    number: int, arch: str, fused: bool, tmp_path: Path
) -> None:
    geometry = GEOMETRIES[number]
    write_random_checkpoint(tmp_path, arch=arch, tokenizer=False, vocab_size=32, **geometry)
    if fused and arch == "deepseek_v3" and geometry.get("first_k_dense_replace") != 3:
        fuse_experts(tmp_path)
    checkpoint = Checkpoint(tmp_path)
    new = Parameters("cpu", torch.float32, checkpoint.headers)
    checkpoint.family(checkpoint.config, new, OPS)
    for weight in new.weights:
        weight.data.zero_()

    for weight, placement in new.placements.values():
        weight.data[placement.part] += 1

    assert all(torch.all(weight.data == 1) for weight in new.weights)
    assert new.targets().keys() <= checkpoint.headers.keys()


def filled_at_random(new: Parameters) -> None:
    generator = torch.Generator().manual_seed(0)
    for weight, placement in new.placements.values():
        part = weight.data[placement.part]
        part.copy_(torch.randn(part.shape, generator=generator) * 0.3)


def cut(whole: Parameters, shard: Parameters, rank: int) -> None:
    """Fill the shard of one rank as the placements say."""
    assert shard.placements.keys() == whole.placements.keys()
    for name, (weight, placement) in shard.placements.items():
        full, whole_placement = whole.placements[name]
        source, shard_dim = full.data[whole_placement.part], placement.shard
        if shard_dim is not None:
            source = source.chunk(RANKS, dim=shard_dim)[rank]
        elif placement.partial and rank:
            source = torch.zeros_like(source)
        weight.data[placement.part].copy_(source)


def check_sum(make: Callable[[Parameters, int], Callable[[], Tensor]]) -> None:
    """`make(new, ranks)` declares a layer of 1/ranks of the size and returns what computes it."""
    whole = Parameters("cpu", torch.float32)
    compute = make(whole, 1)
    filled_at_random(whole)
    expected = compute()

    total = torch.zeros_like(expected)
    for rank in range(RANKS):
        shard = Parameters("cpu", torch.float32)
        compute = make(shard, RANKS)
        cut(whole, shard, rank)
        total += compute()

    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4)
    assert any(placement.shard is not None for _, placement in whole.placements.values())


def hidden_states() -> Tensor:
    return torch.randn(TOKENS, HIDDEN, generator=torch.Generator().manual_seed(1))


def test_the_shards_of_an_mlp_add_up_to_it() -> None:
    def make(new: Parameters, ranks: int) -> Callable[[], Tensor]:
        mlp = Mlp(HIDDEN, 48 // ranks, new, OPS)
        return lambda: mlp.forward(hidden_states())

    check_sum(make)


@pytest.mark.parametrize("found", [(), ("experts.gate_up_proj",)], ids=["one by one", "fused"])
@pytest.mark.parametrize("shared", [0, 1, 2])
def test_the_shards_of_experts_add_up_to_them(shared: int, found: tuple[str, ...]) -> None:
    config = MoeConfig(8, shared, 16, 2, 2, 1, True, 2.5)

    def make(new: Parameters, ranks: int) -> Callable[[], Tensor]:
        moe = replace(config, intermediate_size=config.intermediate_size // ranks)
        layer = Moe(HIDDEN, moe, replace(new, found=found), OPS)
        return lambda: layer.forward(hidden_states())

    check_sum(make)


@pytest.mark.parametrize("absorbed", [0, 4, TOKENS])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("q_lora_rank", [None, 24])
def test_the_shards_of_latent_attention_add_up_to_it(
    q_lora_rank: int | None, bias: bool, absorbed: int
) -> None:
    rope = Rope(8, 10_000.0)
    config = MlaConfig(HIDDEN, 4, q_lora_rank, 16, 12, 8, 20, bias, rope, True)
    int32 = torch.arange(TOKENS, dtype=torch.int32)
    batch = ForwardBatch(
        token_ids=torch.zeros(TOKENS, dtype=torch.int64),
        positions=torch.arange(TOKENS),
        cache_index=torch.arange(TOKENS),
        block_table=torch.zeros((1, 1), dtype=torch.int32),
        token_slots=torch.zeros(TOKENS, dtype=torch.int32),
        absorbed_context_lens=int32[:absorbed] + 1,
        expanded_slots=int32[:1] if absorbed < TOKENS else int32[:0],
        query_start=torch.tensor([0, TOKENS - absorbed][: 1 + (absorbed < TOKENS)]).int(),
        context_lens=int32[-1:] + 1 if absorbed < TOKENS else int32[:0],
        sample_index=torch.arange(TOKENS),
    )

    def make(new: Parameters, ranks: int) -> Callable[[], Tensor]:
        shard = replace(config, num_heads=config.num_heads // ranks)
        layer = MlaAttention(shard, new, OPS, rope.table(TOKENS))
        kv = torch.zeros((1, 16, config.cache_width))
        return lambda: layer.attend(layer.write_cache(hidden_states(), batch, kv), batch, kv)

    check_sum(make)
