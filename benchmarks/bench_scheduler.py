# SPDX-License-Identifier: MIT
"""Host time of one scheduler step, ours and `tokenspeed-scheduler` 0.1.42 alternating.

A step is everything the host does for it: plan, make the plan's arrays visible to
Python, commit the sampled tokens, read the outputs and the KV events. N sequences
decode together, each with a prompt whose first half is shared by all. Admission is
prompt tokens per second from `submit` until every sequence has its first token.

The sides take turns of BLOCK steps. The first step of a turn finds the CPU's caches
full of the other side's data ("cold", as after a forward pass on this CPU), the others
follow their own kind ("warm").

    pip install --no-deps --target .venvs/tokenspeed-scheduler tokenspeed-scheduler==0.1.42
    python benchmarks/bench_scheduler.py
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ts_scheduler
from results import save

CASES = [(1, 8_192), (64, 8_192), (256, 8_192), (64, 50_000)]
OURS_ALONE = [(64, 1_024), (64, 262_144), (1_024, 32_768)]
PAGE_SIZE = 64
STEP_TOKENS = 8_192
VOCAB_SIZE = 150_000
BLOCK = 5  # steps of one side's turn
SAMPLED = 5  # the token that every step yields


@dataclass(frozen=True)
class Workload:
    sequences: int
    prompt_tokens: int
    steps: int

    def prompts(self) -> Iterator[np.ndarray]:
        shared = np.arange(1, self.prompt_tokens // 2 + 1)
        rest = np.arange(self.prompt_tokens - len(shared))
        for i in range(self.sequences):
            own = (7_919 * (i + 1) + 31 * rest) % VOCAB_SIZE
            yield np.concatenate([shared, own]).astype(np.int32)

    @property
    def output_tokens(self) -> int:
        """Enough that nobody finishes: the first sequence also decodes while others prefill."""
        return self.steps + self.sequences * (self.prompt_tokens // STEP_TOKENS + 2) + 64

    @property
    def pages(self) -> int:
        per_sequence = (self.prompt_tokens + self.output_tokens) // PAGE_SIZE + 4
        return self.sequences * per_sequence + 64


class Ours:
    name = "ts_scheduler"

    def __init__(self, work: Workload) -> None:
        length = work.prompt_tokens + work.output_tokens
        self.scheduler = ts_scheduler.Scheduler(
            ts_scheduler.SchedulerConfig(
                page_size=PAGE_SIZE,
                num_pages=work.pages,
                max_num_seqs=work.sequences,
                max_model_len=length,
                max_num_batched_tokens=STEP_TOKENS,
                chunked_prefill_size=STEP_TOKENS,
                vocab_size=VOCAB_SIZE,
                params_size=40,
            )
        )
        self.work = work
        self.sampled = np.full(work.sequences, SAMPLED, np.int32)

    def admit(self) -> float:
        """Seconds until every sequence has its first token."""
        prompts, params = list(self.work.prompts()), bytes(40)
        begin = time.perf_counter()
        for i, prompt in enumerate(prompts):
            self.scheduler.submit(i, prompt, max_tokens=self.work.output_tokens, params=params)
        decoding = 0
        while decoding < self.work.sequences:
            decoding = self._step()
        return time.perf_counter() - begin

    def step(self) -> float:
        begin = time.perf_counter()
        self._step()
        return time.perf_counter() - begin

    def _step(self) -> int:
        plan = self.scheduler.plan()
        assert plan is not None
        _ = plan.row_slot, plan.row_start, plan.row_tokens, plan.num_decode_rows
        _ = plan.admitted_slot, plan.admitted_request, plan.admitted_offset, plan.admitted_tokens
        _ = plan.admitted_prompt_tokens, plan.admitted_params, plan.page_patch
        sampling = int(np.count_nonzero(plan.row_samples))
        out = self.scheduler.commit(plan.step, self.sampled[:sampling])
        _ = out.request, out.token, out.row, out.finish, out.cached_tokens
        self.scheduler.kv_events(0.0)
        return sampling


class Peer:
    name = "tokenspeed-scheduler"
    READ = (
        "block_tables_arrays",
        "request_pool_indices",
        "input_ids",
        "decode_input_ids",
        "extend_prefix_lens",
        "input_lengths",
    )

    def __init__(self, work: Workload, module: Any) -> None:
        self.module, self.work = module, work
        config = module.SchedulerConfig()
        config.prefix_granularity = PAGE_SIZE
        config.max_scheduled_tokens = STEP_TOKENS
        config.max_batch_size = work.sequences
        config.num_device_pages = work.pages
        config.num_host_pages = 0
        config.num_snapshot_pages = 1
        config.disable_l2_cache = True
        config.disable_prefix_cache = False
        config.overlap_schedule_depth = 0
        config.decode_input_tokens = 1
        config.cache_groups = [
            module.CacheGroupConfig(
                group_id="full",
                block_granularity=PAGE_SIZE,
                total_pages=work.pages,
                attn_kind=module.AttnKind.Full,
            )
        ]
        self.scheduler = module.Scheduler(config)

    def admit(self) -> float:
        specs = []
        for i, prompt in enumerate(self.work.prompts()):
            spec = self.module.RequestSpec()
            spec.request_id = f"r{i}"
            spec.max_new_tokens = self.work.output_tokens
            spec.tokens = prompt.tolist()
            specs.append(spec)
        begin = time.perf_counter()
        self.scheduler.submit_requests(specs)
        while self.scheduler.decoding_size() < self.work.sequences:
            self._step()
        return time.perf_counter() - begin

    def step(self) -> float:
        begin = time.perf_counter()
        self._step()
        return time.perf_counter() - begin

    def _step(self) -> None:
        event = self.module.ExecutionEvent()
        for forward in self.scheduler.next_execution_plan().forward:
            ids, extends = forward.request_ids, forward.num_extends()
            arrays = {name: getattr(forward, name) for name in self.READ if hasattr(forward, name)}
            arrays = {name: a() if callable(a) else a for name, a in arrays.items()}
            start = arrays["extend_prefix_lens"]
            length = arrays["input_lengths"]
            total = forward.prefill_lengths
            for i, request_id in enumerate(ids):
                if i < extends and start[i] + length[i] < total[i]:
                    continue  # an intermediate chunk yields no token
                result = self.module.ForwardEvent.ExtendResult()
                result.request_id = request_id
                result.tokens = [SAMPLED]
                event.add_event(result)
        self.scheduler.advance(event)


def find_peer(folder: Path) -> Any | None:
    """The peer's module, installed here or (it has no dependencies) into `folder`."""
    sys.path.append(str(folder))
    try:
        import tokenspeed_scheduler
    except ImportError:
        return None
    return tokenspeed_scheduler


@dataclass
class Measured:
    warm: float  # median µs of a step that follows one of the same side
    cold: float  # median µs of a step that follows the other side's
    admission: float  # M prompt tokens/s


def measure(work: Workload, sides: list[Ours | Peer]) -> list[Measured]:
    """Both sides in turn, BLOCK steps each; alone, a side has no cold steps (nan)."""
    admission = [work.sequences * work.prompt_tokens / side.admit() / 1e6 for side in sides]
    for side in sides:
        side.step()  # the first steady step makes the array views
    warm: list[list[float]] = [[] for _ in sides]
    cold: list[list[float]] = [[] for _ in sides]
    gc.disable()
    for _ in range(work.steps // BLOCK):
        for i, side in enumerate(sides):
            seconds = [1e6 * side.step() for _ in range(BLOCK)]
            cold[i].append(seconds[0] if len(sides) > 1 else math.nan)
            warm[i].extend(seconds[1:])
    gc.enable()
    return [
        Measured(statistics.median(w), statistics.median(c), a)
        for w, c, a in zip(warm, cold, admission, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--peer", type=Path, default=Path(".venvs/tokenspeed-scheduler"))
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    arguments = parser.parse_args()
    peer = find_peer(arguments.peer)
    if peer is None:
        print(f"{Peer.name} is not installed (see the head of this script): only ours is measured")

    print("median µs of a decode step: warm, cold; admission in M prompt tokens/s")
    print(f"{'sequences x context':>20} | {Ours.name:^25} | {Peer.name:^25} | ratio warm, cold")
    numbers: dict[str, dict[str, float]] = {}
    for sequences, prompt_tokens in CASES + OURS_ALONE:
        work = Workload(sequences, prompt_tokens, arguments.steps)
        sides: list[Ours | Peer] = [Ours(work)]
        if peer is not None and (sequences, prompt_tokens) in CASES:
            sides.append(Peer(work, peer))
        results = measure(work, sides)
        line = f"{f'{sequences} x {prompt_tokens:,}':>20}"
        for r in results:
            line += f" | {r.warm:>8.1f} {r.cold:>8.1f} {r.admission:>7.1f}"
        if len(results) == 2:
            ours, theirs = results
            line += f" | {theirs.warm / ours.warm:>6.0f}x {theirs.cold / ours.cold:>6.0f}x"
        print(line, flush=True)
        numbers[f"{sequences} x {prompt_tokens}"] = {
            f"{name}_{field}": value
            for name, measured in zip((Ours.name, Peer.name), results, strict=False)
            for field, value in vars(measured).items()
            if not math.isnan(value)
        }
    if arguments.save:
        print(f"saved {save('scheduler', {'by_case': numbers})}")


if __name__ == "__main__":
    main()
