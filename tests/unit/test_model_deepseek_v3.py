# SPDX-License-Identifier: MIT
"""DeepSeek-V3 computes what `transformers` computes, however the tokens are cut into steps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import ts_kernels
from model_driver import CachedSequence, ModelDriver
from oracle import Oracle
from safetensors.torch import load_file, save_file
from torch import Tensor

from dynamo_tokenspeed.model import CausalLM, Checkpoint, load_model
from dynamo_tokenspeed.model.layers.moe import Moe
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint

VOCAB_SIZE = 96
YARN = {"yarn_factor": 8.0, "yarn_original_max_position_embeddings": 32}
REAL_HEADS = {
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
NO_GROUPS = {"n_group": 1, "topk_group": 1}
GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"q_lora_rank": None},
    {"rope_interleave": False},
    {"rope_interleave": False, "q_lora_rank": None, "attention_bias": True},
    {"attention_bias": True},
    {"attention_bias": True, "q_lora_rank": None, "tie_word_embeddings": True},
    {"tie_word_embeddings": True, **YARN},
    {**YARN, "rope_theta": 50000.0},
    {**YARN, "yarn_mscale": 0.707, "yarn_mscale_all_dim": 1.0},
    {**YARN, "yarn_mscale": 1.0, "yarn_mscale_all_dim": 0.0},
    {**YARN, "yarn_factor": 1.0, "rope_interleave": False},
    {**NO_GROUPS, "num_experts_per_tok": 4},
    {"n_group": 4, "topk_group": 2, "n_routed_experts": 16, "num_experts_per_tok": 4},
    {"n_group": 2, "topk_group": 2, "num_experts_per_tok": 8},
    {"norm_topk_prob": False, "routed_scaling_factor": 1.0},
    {"num_experts_per_tok": 1, **NO_GROUPS},
    {"n_shared_experts": 2},
    {"n_shared_experts": 3, "moe_intermediate_size": 24},
    {"first_k_dense_replace": 0, "num_hidden_layers": 2},
    {"first_k_dense_replace": 3},
    {"num_hidden_layers": 1},
    {"num_attention_heads": 1, "v_head_dim": 24, "qk_nope_head_dim": 12},
    {"num_attention_heads": 16, "qk_rope_head_dim": 2, "kv_lora_rank": 20},
    {"rms_norm_eps": 1e-2},
    {**REAL_HEADS, **YARN, "num_attention_heads": 2},
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only lose time to a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def checkpoint(directory: Path, dtype: torch.dtype, **geometry: Any) -> Path:
    return write_random_checkpoint(
        directory,
        dtype=str(dtype).removeprefix("torch."),
        tokenizer=False,
        **{"vocab_size": VOCAB_SIZE, "std": 0.08, **geometry},
    )


def load(directory: Path, dtype: torch.dtype) -> CausalLM:
    return load_model(Checkpoint(directory), "cpu", dtype, ts_kernels.bind("cpu", dtype))


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def random_tokens(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(VOCAB_SIZE) for _ in range(length)]


def serve_at_random(
    driver: ModelDriver, prompts: list[list[int]], new_tokens: int, rng: random.Random
) -> list[tuple[CachedSequence, dict[int, Tensor]]]:
    """Decode greedily with random steps: any subset of the sequences, chunks of any size, later
    sequences taking cached pages of earlier ones. The logits seen at each position."""
    waiting = list(prompts)
    running: list[tuple[CachedSequence, dict[int, Tensor]]] = []
    limit = [len(prompt) + new_tokens for prompt in prompts]
    while True:
        if waiting and (not running or rng.random() < 0.5):
            prefix_of = rng.choice(running)[0] if running else None
            running.append((driver.sequence(waiting.pop(0), prefix_of), {}))
        unfinished = [
            entry for entry, end in zip(running, limit, strict=False) if len(entry[0].tokens) < end
        ]
        if not unfinished and not waiting:
            return running
        chosen = rng.sample(unfinished, rng.randint(0, len(unfinished)))
        if not chosen:
            continue
        rows = [
            (s, s.pending if rng.random() < 0.5 else rng.randint(1, s.pending)) for s, _ in chosen
        ]
        if rng.random() < 0.2 and all(n < s.pending for s, n in rows):
            driver.step(rows, sample=False)
            continue
        for (sequence, seen), logits in zip(chosen, driver.step(rows), strict=True):
            seen[sequence.cached - 1] = logits
            if not sequence.pending:
                sequence.tokens.append(int(logits.argmax()))


def prompts_with_common_beginnings(rng: random.Random, count: int) -> list[list[int]]:
    """Lengths from 1 to several pages; half of them begin like the one before."""
    prompts = [random_tokens(rng, rng.choice([1, 2, 7, 33, 70]))]
    while len(prompts) < count:
        begin = prompts[-1] if rng.random() < 0.5 else []
        prompts.append(begin + random_tokens(rng, rng.choice([1, 3, 16, 40])))
    return prompts


@pytest.mark.parametrize("number", range(len(GEOMETRIES)))
def test_any_schedule_in_fp32_gives_the_logits_and_greedy_tokens_of_transformers(
    number: int, tmp_path: Path
) -> None:
    rng = random.Random(number)
    directory = checkpoint(tmp_path, torch.float32, seed=number, **GEOMETRIES[number])
    oracle = Oracle(directory)
    page_size = [1, 2, 3, 5, 8, 16, 64][number % 7]
    driver = ModelDriver(load(directory, torch.float32), page_size, num_pages=1024, seed=number)

    served = serve_at_random(
        driver, prompts_with_common_beginnings(rng, 1 + number % 8), new_tokens=5, rng=rng
    )

    assert not any(oracle.loading.values())
    for sequence, seen in served:
        expected = oracle.logits(sequence.tokens)
        for position, logits in seen.items():
            assert relative_error(logits, expected[position]) < 1e-4
            assert logits.argmax() == expected[position].argmax()


@pytest.mark.parametrize("number", [0, 1, 4, 7, 12, 16, 19, 24])
def test_any_schedule_in_bf16_stays_within_2e_2_of_transformers_in_bf16(
    number: int, tmp_path: Path
) -> None:
    rng = random.Random(number)
    # Biases far apart: where two experts nearly tie, rounding may choose either, in any program.
    directory = checkpoint(
        tmp_path, torch.bfloat16, std=0.05, router_bias_std=2.0, **GEOMETRIES[number]
    )
    oracle = Oracle(directory, torch.bfloat16)
    driver = ModelDriver(load(directory, torch.bfloat16), page_size=4, num_pages=1024)

    served = serve_at_random(driver, prompts_with_common_beginnings(rng, 4), new_tokens=5, rng=rng)

    for sequence, seen in served:
        expected = oracle.logits(sequence.tokens)[list(seen)]
        assert relative_error(torch.stack(list(seen.values())), expected) < 2e-2


def test_greedy_generation_token_by_token_is_that_of_transformers(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path, torch.float32)
    prompt = random_tokens(random.Random(0), 20)
    driver = ModelDriver(load(directory, torch.float32), page_size=4)

    sequence = driver.sequence(prompt)
    driver.step([(sequence, 19)], sample=False)
    for _ in range(12):
        (logits,) = driver.step([(sequence, 1)])
        sequence.tokens.append(int(logits.argmax()))

    assert sequence.tokens[20:] == Oracle(directory).greedy(prompt, 12)


def test_logits_may_be_asked_for_at_any_tokens_of_a_step(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path, torch.float32, **YARN)
    rng = random.Random(0)
    driver = ModelDriver(load(directory, torch.float32), page_size=4)
    one, two = (driver.sequence(random_tokens(rng, 20)) for _ in range(2))
    driver.step([(one, 19)], sample=False)

    batch, _ = driver.batch([(two, 20), (one, 1)])
    wanted = torch.tensor([0, 1, 4, 5, 20])  # the only token of `one`, then tokens 0, 3, 4, 19
    logits = driver.model.forward(replace(batch, sample_index=wanted), driver.pool)

    oracle = Oracle(directory)
    expected = torch.cat([oracle.logits(one.tokens)[19:], oracle.logits(two.tokens)[[0, 3, 4, 19]]])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_kimi_k25_text_gives_the_logits_of_transformers_kimi_k25(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path, torch.float32, arch="kimi_k25", **YARN)
    oracle = Oracle(directory)
    tokens = random_tokens(random.Random(0), 40)
    tokens = [token % (VOCAB_SIZE - 1) for token in tokens]  # the last id stands for an image

    driver = ModelDriver(load(directory, torch.float32), page_size=16)
    sequence = driver.sequence(tokens)
    (prefilled,) = driver.step([(sequence, 39)])
    (decoded,) = driver.step([(sequence, 1)])

    missing = {name for name in oracle.loading["missing_keys"] if "vision" not in name}
    assert not {name for name in missing if "mm_projector" not in name}
    expected = oracle.logits(tokens)
    assert relative_error(prefilled, expected[38]) < 1e-4
    assert relative_error(decoded, expected[39]) < 1e-4


@pytest.mark.parametrize("arch", ["deepseek_v3", "kimi_k25"])
def test_a_checkpoint_that_transformers_saved_is_served(arch: str, tmp_path: Path) -> None:
    written = checkpoint(tmp_path / "ours", torch.float32, arch=arch, **YARN)
    oracle = Oracle(written)
    oracle.model.save_pretrained(tmp_path / "theirs", max_shard_size="300KB")
    tokens = [*random_tokens(random.Random(0), 8), 1]

    driver = ModelDriver(load(tmp_path / "theirs", torch.float32), page_size=4)
    (logits,) = driver.step([(driver.sequence(tokens), 9)])

    assert relative_error(logits, oracle.logits(tokens)[-1]) < 1e-4


def test_moe_layer_freq_makes_the_layers_between_dense(tmp_path: Path) -> None:
    directory = checkpoint(
        tmp_path, torch.float32, num_hidden_layers=5, first_k_dense_replace=1, moe_layer_freq=2
    )
    model: Any = load(directory, torch.float32)
    routed = [i for i, layer in enumerate(model.layers) if isinstance(layer.mlp, Moe)]
    assert routed == [2, 4]


def test_without_shared_experts_a_token_passes_through_its_routed_ones_only(
    tmp_path: Path,
) -> None:
    # transformers has no such checkpoint; zero weights in one are the same function.
    geometry = {"num_hidden_layers": 2, "first_k_dense_replace": 0}
    directory = checkpoint(tmp_path / "without", torch.float32, n_shared_experts=None, **geometry)
    twin = checkpoint(tmp_path / "with", torch.float32, **geometry)
    kept = load_file(directory / "model.safetensors")
    for name, tensor in load_file(twin / "model.safetensors").items():
        kept.setdefault(name, torch.zeros_like(tensor))
    save_file(kept, twin / "model.safetensors")

    tokens = random_tokens(random.Random(0), 9)
    drivers = [ModelDriver(load(d, torch.float32), page_size=4) for d in (directory, twin)]
    ours, theirs = (d.step([(d.sequence(tokens), 9)])[0] for d in drivers)

    torch.testing.assert_close(ours, theirs)
