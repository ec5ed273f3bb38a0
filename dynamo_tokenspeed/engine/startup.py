# SPDX-License-Identifier: MIT
"""From a configuration to an engine that can serve."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

import torch
import ts_kernels
import ts_scheduler
import zmq

from dynamo_tokenspeed.engine.capacity import (
    MIB,
    CapacityError,
    num_host_pages,
    num_pages,
    num_threads,
)
from dynamo_tokenspeed.engine.executor import Executor
from dynamo_tokenspeed.engine.host_pool import HostPool
from dynamo_tokenspeed.engine.kv_events import KVEventPublisher
from dynamo_tokenspeed.engine.load_progress import load_progress
from dynamo_tokenspeed.engine.sampler import Sampler
from dynamo_tokenspeed.engine.slot_tables import SlotTables
from dynamo_tokenspeed.engine.step_memory import StepMemory
from dynamo_tokenspeed.engine.token_constraints import TokenConstraints
from dynamo_tokenspeed.engine.transfers import Transfers
from dynamo_tokenspeed.model import Checkpoint, KVPool, load_model, resolve_dtype
from dynamo_tokenspeed.protocol import SAMPLING_DTYPE, Capacity, EngineConfig

log = logging.getLogger("dynamo_tokenspeed.engine")


class Engine(NamedTuple):
    scheduler: ts_scheduler.Scheduler
    executor: Executor
    kv_events: KVEventPublisher | None
    capacity: Capacity


def build(config: EngineConfig, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> Engine:
    """Load the model, size the KV pool, make the scheduler.

    `context` is needed for `kv_events_endpoint` only.

    Raises ModelError, CapacityError, NoImplementation or OSError, each one sentence.
    """
    started = time.perf_counter()
    device = torch.device(config.device)
    checkpoint = Checkpoint(config.model)
    model_config = checkpoint.config
    dtype = resolve_dtype(model_config, config.dtype)
    max_model_len = _max_model_len(config, model_config.max_position_embeddings)
    # What only pads the model's vocabulary is in nobody's.
    vocab_size = min(model_config.vocab_size, config.num_token_ids or model_config.vocab_size)

    # Before the weights are loaded: what cannot fit is said at once.
    bytes_per_page = model_config.kv_spec.bytes_per_page(config.page_size, dtype)
    pages = num_pages(config, max_model_len, bytes_per_page)
    host_pages = num_host_pages(config, pages, bytes_per_page)
    threads = num_threads(config)

    traits = {**model_config.traits, "page_size": config.page_size}
    ops = ts_kernels.bind(device.type, dtype, _overrides(config), traits)
    ts_kernels.set_num_threads(threads, ops)
    for op, selection in ops.selections.items():
        log.debug("%s: %s", op, selection)
    with load_progress() as on_progress:
        model = load_model(checkpoint, device, dtype, ops, on_progress)
    pool = KVPool(model.kv_spec, pages, config.page_size, dtype, device)
    tables = SlotTables(config.max_num_seqs, max_model_len, config.page_size, device)
    overlap = device.type == "cuda" if config.overlap_schedule is None else config.overlap_schedule
    scheduler = ts_scheduler.Scheduler(
        ts_scheduler.SchedulerConfig(
            page_size=config.page_size,
            num_pages=pages,
            num_host_pages=host_pages,
            max_num_seqs=config.max_num_seqs,
            max_model_len=max_model_len,
            max_num_batched_tokens=config.max_num_batched_tokens,
            chunked_prefill_size=config.chunked_prefill_size,
            absorb_from=config.absorb_from,
            min_tps_per_user=config.min_tps_per_user,
            overlap_depth=int(overlap),
            vocab_size=vocab_size,
            enable_prefix_caching=config.enable_prefix_caching,
            enable_kv_events=bool(config.kv_events_endpoint),
            params_size=SAMPLING_DTYPE.itemsize,
            dp_rank=config.dp_rank,
        )
    )
    executor = Executor(
        model,
        pool,
        ops,
        tables,
        StepMemory(
            ops,
            tables,
            config.page_size,
            pages,
            max_tokens=config.max_num_batched_tokens,
            max_rows=config.max_num_seqs,
            arena_words=scheduler.arena_words,
        ),
        Sampler(
            ops, model_config.vocab_size, _unknown_ids(config, model_config.vocab_size, device)
        ),
        TokenConstraints(device),
        Transfers(HostPool(pool, host_pages)) if host_pages else None,
        overlap,
    )
    kv_events = None
    if config.kv_events_endpoint:
        assert context is not None, "KV events need a ZMQ context"
        kv_events = KVEventPublisher(context, config.kv_events_endpoint, config.kv_events_topic)
    capacity = Capacity(
        num_pages=pages,
        page_size=config.page_size,
        max_model_len=max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        vocab_size=vocab_size,
        kv_events_endpoint=kv_events.endpoint if kv_events else "",
        kv_bytes=pool.kv.nbytes,
        weight_bytes=model.weight_bytes,
    )
    log.info(
        "ready in %.1f s: %.0f MiB of weights in %s, %d pages of %d tokens (%.0f MiB)%s",
        time.perf_counter() - started,
        capacity.weight_bytes / MIB,
        str(dtype).removeprefix("torch."),
        pages,
        config.page_size,
        capacity.kv_bytes / MIB,
        f", {host_pages} more in host memory" if host_pages else "",
    )
    return Engine(scheduler, executor, kv_events, capacity)


def _unknown_ids(
    config: EngineConfig, vocab_size: int, device: torch.device
) -> torch.Tensor | None:
    """The ids of the model, holes and padding, that its tokenizer does not know; None: no such."""
    holes = [token_id for token_id in config.unknown_token_ids if token_id < vocab_size]
    padding = range(config.num_token_ids or vocab_size, vocab_size)
    ids = [*holes, *padding]
    return torch.tensor(ids, device=device) if ids else None


def _max_model_len(config: EngineConfig, max_position_embeddings: int) -> int:
    if config.max_model_len is None:
        return max_position_embeddings
    if config.max_model_len > max_position_embeddings:
        raise CapacityError(
            f"--max-model-len {config.max_model_len} is more than the model's "
            f"max_position_embeddings {max_position_embeddings}: lower it"
        )
    return config.max_model_len


def _overrides(config: EngineConfig) -> dict[str, str]:
    """`--attention-backend` and `--moe-backend` as choices by group of ops."""
    chosen = {"attention": config.attention_backend, "moe": config.moe_backend}
    return {group: backend for group, backend in chosen.items() if backend is not None}
