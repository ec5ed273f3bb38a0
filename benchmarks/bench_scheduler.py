# SPDX-License-Identifier: MIT
"""Host time of one scheduler step, ours and `tokenspeed-scheduler` 0.1.42 alternating.

A step is everything the host does for it: plan, make the plan's arrays visible to
Python, commit the sampled tokens, read the outputs and the KV events. N sequences
decode together, each with a prompt whose first half is shared by all. `overlap` is
ours with overlap_depth=1: step N+1 is planned before step N is committed.

The sides take turns of BLOCK steps. The first step of a turn finds the CPU's caches
full of the other side's data ("cold", as after a forward pass on this CPU), the others
follow their own kind ("warm").

Admission is prompt tokens per second from `submit` until every prompt has its first
token: in the table of steps from an empty prefix cache, in the table of admission in
rounds of ADMITTED prompts on a scheduler that has served such rounds before.

Fan-out is agents that share one prefix of FAN_OUT_TOKENS: one runs, the others wait, for the prefix
to be computed or for pages or slots. plan() alone is timed.

Memory per cached page is measured: two processes fill pools of different size with
cached pages, and the difference of their resident memory is divided by that of the
pages, less the page's tokens.

    pip install --no-deps --target .venvs/tokenspeed-scheduler tokenspeed-scheduler==0.1.42
    python benchmarks/bench_scheduler.py     # --only decode, admission, fan-out or memory
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ts_scheduler
from results import save

CASES = [(1, 8_192), (64, 8_192), (256, 8_192), (64, 50_000), (1_024, 32_768)]
WITHOUT_PEER = {(1_024, 32_768)}  # it takes minutes there
SHORT_AND_LONG = [(64, 1_024), (64, 262_144)]  # ours alone, in turns
PAGE_SIZE = 64
STEP_TOKENS = 8_192
VOCAB_SIZE = 150_000
BLOCK = 5  # steps of one side's turn
SAMPLED = 5  # the token that every step yields
# A round is over before another process of a busy machine gets its turn.
ADMITTED, ADMITTED_TOKENS, ROUNDS = 4, 50_000, 40
FAN_OUT_TOKENS, FAN_OUT_OWN, FAN_OUT_CHUNK = 50_000, 4_096, 512
FAN_OUT = (1, 8, 33, 64)  # agents, one of which runs
LACKS = ("prefix", "pages", "slots")
POOLS = (133_000, 532_000)  # pages; both just above a power of two, where hash tables are emptiest


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

    def __init__(self, work: Workload, overlap: int = 0, rounds: int = 1) -> None:
        length = work.prompt_tokens + work.output_tokens
        self.scheduler = ts_scheduler.Scheduler(
            ts_scheduler.SchedulerConfig(
                page_size=PAGE_SIZE,
                num_pages=rounds * work.pages,
                max_num_seqs=work.sequences,
                max_model_len=length,
                max_num_batched_tokens=STEP_TOKENS,
                chunked_prefill_size=STEP_TOKENS,
                vocab_size=VOCAB_SIZE,
                params_size=40,
                overlap_depth=overlap,
            )
        )
        self.overlap = overlap
        self.in_flight: deque[tuple[int, int]] = deque()  # step, sampling rows
        self.work = work
        self.sampled = np.full(work.sequences, SAMPLED, np.int32)

    def admit(self) -> float:
        """Seconds until every sequence has its first token."""
        return self.admit_prompts(list(self.work.prompts()))

    def admit_prompts(self, prompts: list[np.ndarray]) -> float:
        params = bytes(40)
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

    def end_all(self) -> None:
        for i in range(self.work.sequences):
            self.scheduler.abort(i)
        while self.in_flight:
            self._step()

    def _step(self) -> int:
        """The rows that sampled in the step committed; 0 while the pipeline fills."""
        plan = self.scheduler.plan()
        if plan is not None:
            _ = plan.row_slot, plan.row_start, plan.row_tokens, plan.num_absorbed_rows
            _ = plan.admitted_slot, plan.admitted_request, plan.admitted_offset
            _ = plan.admitted_tokens, plan.admitted_prompt_tokens, plan.admitted_params
            _ = plan.page_patch
            self.in_flight.append((plan.step, int(np.count_nonzero(plan.row_samples))))
            if len(self.in_flight) <= self.overlap:
                return 0
        step, sampling = self.in_flight.popleft()
        out = self.scheduler.commit(step, self.sampled[:sampling])
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
        return self.admit_prompts(list(self.work.prompts()))

    def admit_prompts(self, prompts: list[np.ndarray]) -> float:
        specs = []
        for i, prompt in enumerate(prompts):
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

    def run_alone(self, tokens: np.ndarray) -> None:
        """Computes a prompt, which stays cached."""
        spec = self.module.RequestSpec()
        spec.request_id = "alone"
        spec.max_new_tokens = 1
        spec.tokens = tokens.tolist()
        self.scheduler.submit_requests([spec])
        for _ in range(len(tokens) // STEP_TOKENS + 3):
            self._step()

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


def measure(steps: int, sides: list[Ours | Peer]) -> list[Measured]:
    """The sides in turn, BLOCK steps each; alone, a side has no cold steps (nan)."""
    admission = [
        side.work.sequences * side.work.prompt_tokens / side.admit() / 1e6 for side in sides
    ]
    for side in sides:
        side.step()  # the first steady step makes the array views
    warm: list[list[float]] = [[] for _ in sides]
    cold: list[list[float]] = [[] for _ in sides]
    gc.disable()
    for _ in range(steps // BLOCK):
        for i, side in enumerate(sides):
            seconds = [1e6 * side.step() for _ in range(BLOCK)]
            cold[i].append(seconds[0] if len(sides) > 1 else math.nan)
            warm[i].extend(seconds[1:])
    gc.enable()
    return [
        Measured(statistics.median(w), statistics.median(c), a)
        for w, c, a in zip(warm, cold, admission, strict=True)
    ]


@dataclass
class Demand:
    """What is asked of the scheduler, and what was measured."""

    what: str
    unit: str
    target: float
    at_most: bool
    measured: float

    @property
    def met(self) -> bool:
        return self.measured <= self.target if self.at_most else self.measured >= self.target

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return (
            f"{self.what:<52} {self.measured:>9.1f} {sign} {self.target:>6.1f} {self.unit:<10}"
            f" {'met' if self.met else 'NOT MET'}"
        )


def measure_decode(peer: Any | None, steps: int, numbers: dict[str, Any]) -> list[Demand]:
    print("median µs of a decode step: warm, cold; admission in M prompt tokens/s (empty cache)")
    print(
        f"{'sequences x context':>20} | {Ours.name:^25} | {'overlap':^25} | {Peer.name:^25} |"
        " ratio warm, cold"
    )
    found: dict[tuple[int, int], list[Measured]] = {}
    for case in CASES:
        work = Workload(*case, steps)
        sides: list[Ours | Peer] = [Ours(work), Ours(work, overlap=1)]
        if peer is not None and case not in WITHOUT_PEER:
            sides.append(Peer(work, peer))
        found[case] = measure(steps, sides)
        show(case, found[case], numbers)
        del sides
    turns = measure(steps, [Ours(Workload(*case, steps)) for case in SHORT_AND_LONG])
    for case, measured in zip(SHORT_AND_LONG, turns, strict=True):
        show(case, [measured], numbers)
    demands = [
        Demand("decode step, 256 x 8K", "µs", 60, True, found[256, 8_192][0].warm),
        Demand("decode step, 64 x 50K", "µs", 20, True, found[64, 50_000][0].warm),
        Demand("decode step, 1,024 x 32K", "µs", 200, True, found[1_024, 32_768][0].warm),
        Demand("64 x 256K against 64 x 1K", "times", 1.2, True, turns[1].warm / turns[0].warm),
    ]
    if peer is not None:
        ours, _, theirs = found[256, 8_192]
        ratio = theirs.warm / ours.warm
        demands.insert(1, Demand("  against the peer", "times", 100, False, ratio))
    return demands


def show(case: tuple[int, int], results: list[Measured], numbers: dict[str, Any]) -> None:
    sequences, prompt_tokens = case
    line = f"{f'{sequences} x {prompt_tokens:,}':>20}"
    for r in results:
        line += f" | {r.warm:>8.1f} {r.cold:>8.1f} {r.admission:>7.1f}"
    if len(results) == 3:
        ours, _, theirs = results
        line += f" | {theirs.warm / ours.warm:>6.0f}x {theirs.cold / ours.cold:>6.0f}x"
    print(line, flush=True)
    numbers.setdefault("by_case", {})[f"{sequences} x {prompt_tokens}"] = {
        f"{name}_{field}": value
        for name, measured in zip((Ours.name, "overlap", Peer.name), results, strict=False)
        for field, value in vars(measured).items()
        if not math.isnan(value)
    }


def round_of(number: int, shared: int) -> list[np.ndarray]:
    """Prompts whose first `shared` tokens are everybody's and the rest their own."""
    rest = np.arange(ADMITTED_TOKENS - shared)
    first = np.arange(1, shared + 1)
    return [
        np.concatenate([first, (7_919 * (ADMITTED * number + i + 1) + 31 * rest) % VOCAB_SIZE])
        .astype(np.int32)
        for i in range(ADMITTED)
    ]  # fmt: skip


def admission_rate(shared: int, same: bool = False, pools: int = 2 + ROUNDS) -> float:
    """M prompt tokens/s, the median of ROUNDS; `same`: every round has the same prompts.

    The pool holds the pages of so many rounds; with fewer than are run, every page taken evicts
    one.
    """
    side = Ours(Workload(ADMITTED, ADMITTED_TOKENS, 0), rounds=pools)
    seconds = []
    for number in range(2 + ROUNDS):
        seconds.append(side.admit_prompts(round_of(0 if same else number, shared)))
        side.end_all()
    return ADMITTED * ADMITTED_TOKENS / statistics.median(seconds[2:]) / 1e6


def measure_admission(peer: Any | None, numbers: dict[str, Any]) -> list[Demand]:
    print(f"\nadmission of {ADMITTED} prompts of {ADMITTED_TOKENS:,} tokens, M prompt tokens/s")
    rates = {
        "half cached, half computed": admission_rate(ADMITTED_TOKENS // 2),
        "the same, every page evicting another": admission_rate(ADMITTED_TOKENS // 2, pools=2),
        "all cached but the last page (matching)": admission_rate(ADMITTED_TOKENS // 2, same=True),
        "nothing cached (computing)": admission_rate(0),
    }
    if peer is not None:
        side = Peer(Workload(ADMITTED, ADMITTED_TOKENS, 0), peer)
        prompts = round_of(1, ADMITTED_TOKENS // 2)
        side.run_alone(prompts[0][: ADMITTED_TOKENS // 2])
        rate = ADMITTED * ADMITTED_TOKENS / side.admit_prompts(prompts) / 1e6
        rates[f"half cached, {Peer.name}"] = rate
    for what, rate in rates.items():
        print(f"{what:>52} {rate:>9.1f}", flush=True)
    numbers["admission"] = rates
    rate = rates["half cached, half computed"]
    return [Demand("admission, 50K tokens, half shared", "M tokens/s", 300, False, rate)]


class FanOut:
    """Agents with one prefix, each with tokens of its own behind it; the first one runs, and the
    others wait for `lacks`: the prefix, pages or slots."""

    def __init__(self, lacks: str, agents: int) -> None:
        self.prefix = np.arange(1, FAN_OUT_TOKENS + 1, dtype=np.int32)
        self.lacks, self.agents = lacks, agents
        length = FAN_OUT_TOKENS + FAN_OUT_OWN + 1_024
        room_for = 1 if lacks == "pages" else agents
        self.scheduler = ts_scheduler.Scheduler(
            ts_scheduler.SchedulerConfig(
                page_size=PAGE_SIZE,
                num_pages=room_for * (length // PAGE_SIZE) + FAN_OUT_OWN // PAGE_SIZE // 2,
                max_num_seqs=1 if lacks == "slots" else agents,
                max_model_len=length,
                max_num_batched_tokens=FAN_OUT_CHUNK + agents,
                chunked_prefill_size=FAN_OUT_CHUNK,
                vocab_size=VOCAB_SIZE,
            )
        )

    def submit(self, agent: int) -> None:
        own = np.full(FAN_OUT_OWN, 70_000 + agent, np.int32)
        tokens = np.concatenate([self.prefix, own])
        self.scheduler.submit(agent, tokens, max_tokens=1_000)

    def plans(self) -> list[float]:
        """µs of every plan() while one agent runs and all others wait."""
        self.submit(0)
        if self.lacks != "prefix":
            while self._step()[1] == 0:
                pass
        for agent in range(1, self.agents):
            self.submit(agent)
        steps = FAN_OUT_TOKENS // FAN_OUT_CHUNK - 1 if self.lacks == "prefix" else 400
        gc.disable()
        seconds = [self._step()[0] for _ in range(steps)]
        gc.enable()
        stats = self.scheduler.stats()
        assert (stats.running, stats.waiting) == (1, self.agents - 1)
        return [1e6 * s for s in seconds]

    def _step(self) -> tuple[float, int]:
        begin = time.perf_counter()
        plan = self.scheduler.plan()
        seconds = time.perf_counter() - begin
        assert plan is not None
        sampling = int(np.count_nonzero(plan.row_samples))
        self.scheduler.commit(plan.step, np.full(sampling, SAMPLED, np.int32))
        self.scheduler.kv_events(0.0)
        return seconds, sampling


def measure_fan_out(numbers: dict[str, Any]) -> list[Demand]:
    print(
        f"\nplan() in µs, median and longest; agents share {FAN_OUT_TOKENS:,} tokens and one runs"
    )
    print(f"{'agents':>8} " + " ".join(f"{f'others lack {w}':>24}" for w in LACKS))
    medians: dict[tuple[str, int], float] = {}
    for agents in FAN_OUT:
        line = f"{agents:>8}"
        for lacks in LACKS:
            plans = [us for _ in range(3) for us in FanOut(lacks, agents).plans()]
            medians[lacks, agents] = statistics.median(plans)
            line += f" {medians[lacks, agents]:>15.1f} {max(plans):>8.1f}"
            numbers.setdefault("fan_out", {})[f"{agents} agents, others lack {lacks}"] = {
                "median": medians[lacks, agents],
                "longest": max(plans),
            }
        print(line, flush=True)
    return [
        Demand(
            f"plan(): what 63 that lack {lacks} add",
            "µs",
            2,
            True,
            medians[lacks, 64] - medians[lacks, 1],
        )
        for lacks in LACKS
    ]


def resident_with_full_cache(num_pages: int) -> int:
    """Bytes of this process once every page of the pool is cached."""
    prompt = 500 * PAGE_SIZE
    config = ts_scheduler.SchedulerConfig(
        page_size=PAGE_SIZE,
        num_pages=num_pages,
        max_num_seqs=1,
        max_model_len=prompt + 1,
        max_num_batched_tokens=prompt,
        chunked_prefill_size=prompt,
        vocab_size=VOCAB_SIZE,
    )
    scheduler = ts_scheduler.Scheduler(config)
    random = np.random.default_rng(0)
    while scheduler.stats().pages_free > 500:
        tokens = random.integers(0, VOCAB_SIZE, prompt, np.int32)
        scheduler.submit(0, tokens, max_tokens=1)
        plan = scheduler.plan()
        assert plan is not None
        scheduler.commit(plan.step, np.zeros(1, np.int32))
        scheduler.kv_events(0.0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure_memory(numbers: dict[str, Any]) -> list[Demand]:
    again = [sys.executable, *(["-S"] if sys.flags.no_site else []), __file__]
    small, large = (
        int(
            subprocess.run(
                [*again, "--resident-with", str(pages)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for pages in POOLS
    )
    per_page = (large - small) / (POOLS[1] - POOLS[0])
    tokens = PAGE_SIZE * np.dtype(np.int32).itemsize
    print(f"\nmemory per cached page: {per_page:.1f} bytes, of which {tokens} are its tokens")
    numbers["bytes_per_cached_page"] = per_page
    return [
        Demand("memory per cached page beyond its tokens", "bytes", 96, True, per_page - tokens)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--peer", type=Path, default=Path(".venvs/tokenspeed-scheduler"))
    parser.add_argument("--only", choices=["decode", "admission", "fan-out", "memory"])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--resident-with", type=int, metavar="PAGES", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.resident_with:
        print(resident_with_full_cache(arguments.resident_with))
        return
    peer = find_peer(arguments.peer)
    if peer is None:
        print(f"{Peer.name} is not installed (see the head of this script): only ours is measured")
    numbers: dict[str, Any] = {}
    demands: list[Demand] = []
    if arguments.only in (None, "decode"):
        demands += measure_decode(peer, arguments.steps, numbers)
    if arguments.only in (None, "admission"):
        demands += measure_admission(peer, numbers)
    if arguments.only in (None, "fan-out"):
        demands += measure_fan_out(numbers)
    if arguments.only in (None, "memory"):
        demands += measure_memory(numbers)
    print()
    for demand in demands:
        print(demand)
    if arguments.save and arguments.only is None:
        numbers["demands"] = {d.what.strip(): vars(d) | {"met": d.met} for d in demands}
        print(f"saved {save('scheduler', numbers)}")


if __name__ == "__main__":
    main()
