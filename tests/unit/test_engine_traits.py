# SPDX-License-Identifier: MIT
"""A kernel that is made for certain sizes serves the models that have them, and no other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from ts_kernels import Implementation, NoImplementation, Registry, Selection, selection
from ts_kernels.plugins import load_backends

from dynamo_tokenspeed.engine import startup
from dynamo_tokenspeed.engine.offline import OfflineEngine
from dynamo_tokenspeed.protocol import EngineConfig
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint

PAGE_SIZE = 8
# What the small preset has.
ATTENTION = {
    "num_heads": 4,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "page_size": PAGE_SIZE,
    "hidden_size": 64,
}
EXPERTS = {
    "num_experts": 8,
    "num_shared_experts": 1,
    "moe_intermediate_size": 32,
    "top_k": 2,
    "hidden_size": 64,
}
CASES = [("mla_decode", name) for name in ATTENTION] + [("moe_experts", name) for name in EXPERTS]
Register = Callable[..., Implementation]


@pytest.fixture
def config(tmp_path: Path) -> EngineConfig:
    write_random_checkpoint(tmp_path, arch="kimi_k25", tokenizer=False, vocab_size=32)
    return EngineConfig(
        model=str(tmp_path), num_threads=1, max_model_len=64, num_pages=64, page_size=PAGE_SIZE
    )


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Registers an op of `torch` once more, as backend `elsewhere`, restricted."""
    registry = Registry()
    load_backends(registry)
    monkeypatch.setattr(selection, "default_registry", lambda: registry)

    def register(op: str, **restricted: Any) -> Implementation:
        [plain] = [i for i in registry.implementations(op) if i.backend == "torch"]
        made = Implementation(op, "elsewhere", plain.function, priority=99, **restricted)
        registry.register(made)
        return made

    return register


def traits(op: str) -> Mapping[str, Hashable]:
    return ATTENTION if op == "mla_decode" else EXPERTS


def restricted_to(values: Mapping[str, Hashable]) -> dict[str, frozenset[Hashable]]:
    return {name: frozenset({value}) for name, value in values.items()}


def chosen(config: EngineConfig, op: str) -> Selection:
    model: Any = startup.build(config).executor.model
    found: Selection = model.ops.selections[op]
    return found


@pytest.mark.parametrize("op", ["mla_decode", "moe_experts"])
def test_a_kernel_for_the_sizes_of_the_model_serves_it(
    op: str, config: EngineConfig, register: Register
) -> None:
    made = register(op, traits=restricted_to(traits(op)))
    assert chosen(config, op).implementation is made
    [completion] = OfflineEngine(config).generate([[1, 2, 3]], max_tokens=4)
    assert len(completion.token_ids) == 4


@pytest.mark.parametrize(("op", "name"), CASES)
def test_a_kernel_for_another_size_is_passed_over_with_the_reason(
    op: str, name: str, config: EngineConfig, register: Register
) -> None:
    has = traits(op)[name]
    register(op, traits=restricted_to({**traits(op), name: 1000}))
    assert chosen(config, op).passed_over["elsewhere"] == f"supports {name} 1000, not {has}"


def test_a_kernel_for_another_dtype_is_passed_over_with_the_reason(
    config: EngineConfig, register: Register
) -> None:
    register("mla_decode", dtypes=frozenset({torch.bfloat16}))
    reason = chosen(config, "mla_decode").passed_over["elsewhere"]
    assert reason == "computes in bfloat16, not float32"


def test_an_attention_backend_that_is_made_for_another_model_is_refused_by_that_size(
    config: EngineConfig, register: Register
) -> None:
    register("mla_decode", traits={"kv_lora_rank": frozenset({512})})
    with pytest.raises(NoImplementation, match="supports kv_lora_rank 512, not 32"):
        startup.build(msgspec.structs.replace(config, attention_backend="elsewhere"))
