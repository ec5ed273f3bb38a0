# SPDX-License-Identifier: MIT
"""What users notice when a long context comes back from the host tier beside their decoding.

    python benchmarks/bench_host_tier.py [--runs 8] [--users 4] [--context 51200] [--save]

The model of bench_engine_cpu.py with a longer context; a KV cache that holds one long context and
the users, so that each load takes the pages of another long context, which go to the host tier
first. What a page holds does not matter to its copy: the long contexts are put into the cache
without being computed. A user's step lasts from one token to the next.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import ts_scheduler
from dynamo_tokenspeed.model.random_checkpoint import write_random_checkpoint
from results import save
from rich.console import Console
from rich.table import Table

from dynamo_tokenspeed.engine import step_loop
from dynamo_tokenspeed.engine.inbox import submit
from dynamo_tokenspeed.engine.launched_step import StepResult
from dynamo_tokenspeed.engine.offline import OfflineEngine
from dynamo_tokenspeed.engine.transfers import Transfers
from dynamo_tokenspeed.protocol import EngineConfig, Submit

MODEL = Path(__file__).parent / ".models" / "bench-51m-64k"
PAGE_SIZE = 64
PROMPT = 1024  # of a user
CALM_STEPS = 40  # before the load is asked for


class Run:
    """Users decode; after some steps a long prompt is asked for. Stands at both ends of the loop.

    calm, beside: seconds of the users' steps before the load and while it is under way.
    """

    def __init__(self, users: list[Submit], load: Submit, transfers: Transfers) -> None:
        self.calm: list[float] = []
        self.beside: list[float] = []
        self.load_seconds = 0.0
        self.cached_tokens = 0
        self._users, self._load, self._transfers = users, load, transfers
        self._waiting: list[Submit] = [*users]
        self._last = self._asked = 0.0
        self._decoding = False

    def apply(self, scheduler: ts_scheduler.Scheduler, wait: bool) -> bool:
        if not self._asked and len(self.calm) == CALM_STEPS:
            self._waiting.append(self._load)
            self._asked = time.perf_counter()
        for request in self._waiting:
            submit(scheduler, request)
        self._waiting.clear()
        stats = scheduler.stats()
        alive = stats.waiting + stats.running > 0
        if wait and alive:
            self._transfers.wait()
        return alive or not wait

    def send_step(
        self, output: ts_scheduler.Output, result: StepResult, scheduler: ts_scheduler.Scheduler
    ) -> None:
        now = time.perf_counter()
        if self._load.request_id in output.request:
            at = output.request.tolist().index(self._load.request_id)
            self.cached_tokens = int(output.cached_tokens[at])
            for user in self._users:
                scheduler.abort(user.request_id)
        elif self._decoding and not self.load_seconds and len(output.request):
            (self.beside if self._asked else self.calm).append(now - self._last)
        if self._asked and not self.load_seconds and scheduler.stats().loading == 0:
            self.load_seconds = now - self._asked
        if len(output.request) == len(self._users):
            self._decoding, self._last = True, now

    def send_failed(self, request_id: int, sentence: str) -> None:
        raise RuntimeError(sentence)

    def send_stats(self, scheduler: ts_scheduler.Scheduler) -> None: ...


class Uncomputed:
    """Yields the token 0 and writes no KV."""

    def __init__(self, vocab_size: int) -> None:
        self._logits = torch.zeros(1, vocab_size)

    def forward(self, batch: Any, pool: Any) -> torch.Tensor:
        return self._logits.expand(len(batch.sample_index), -1)


@contextlib.contextmanager
def without_computing(engine: OfflineEngine) -> Iterator[None]:
    with patch.object(engine._engine.executor, "model", Uncomputed(engine.vocab_size)):
        yield


def measure(runs: int, users: int, context: int, overlap: bool) -> dict[str, float]:
    pages_of_users = users * (-(-(PROMPT + 4096) // PAGE_SIZE))
    config = EngineConfig(
        model=str(MODEL),
        dtype="bfloat16",
        page_size=PAGE_SIZE,
        max_model_len=context + 2 * PAGE_SIZE,
        max_num_seqs=users + 1,
        num_pages=context // PAGE_SIZE + 2 + pages_of_users,
        kv_offloading_bytes=3 << 30,
        overlap_schedule=overlap,
    )
    engine = OfflineEngine(config)
    transfers = engine._engine.executor.transfers
    assert transfers is not None
    rng = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(10, engine.vocab_size) for _ in range(count)]

    contexts = [tokens(context), tokens(context)]
    with without_computing(engine):
        for prompt in (*contexts, contexts[0]):
            engine.generate([prompt], max_tokens=1)
    calm, beside, seconds = [], [], []
    for turn in range(1, runs + 1):
        done = Run(
            [engine.request(tokens(PROMPT), 4000, ignore_eos=True) for _ in range(users)],
            engine.request([*contexts[turn % 2], 1], 1),
            transfers,
        )
        step_loop.run(engine.scheduler, engine._engine.executor, done, done, None)
        if done.cached_tokens != context:
            raise RuntimeError(f"{done.cached_tokens} of {context} tokens were found")
        calm += done.calm
        beside.append(done.beside)
        seconds.append(done.load_seconds)
    all_beside = [step for steps in beside for step in steps]
    return {
        "calm_median_ms": 1e3 * statistics.median(calm),
        "calm_worst_ms": 1e3 * max(calm),
        "beside_median_ms": 1e3 * statistics.median(all_beside),
        "beside_worst_ms": 1e3 * max(all_beside),
        "beside_worst_median_ms": 1e3 * statistics.median(map(max, beside)),
        "steps_beside": statistics.median(map(len, beside)),
        "load_ms": 1e3 * statistics.median(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--context", type=int, default=51_200)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    args = parser.parse_args()
    console = Console()
    if not MODEL.exists():
        write_random_checkpoint(MODEL, preset="bench-51m", max_position_embeddings=65_536)
    numbers = {
        name: measure(args.runs, args.users, args.context, overlap)
        for name, overlap in (("one step at a time", False), ("overlap", True))
    }
    table = Table(
        title=f"{args.users} users decode while {args.context:,} tokens are loaded, in ms"
    )
    for column in (
        "",
        "step",
        "worst",
        "beside the load",
        "of its worst",
        "worst",
        "load",
        "steps",
    ):
        table.add_column(column, justify="right" if column else "left")
    for name, of in numbers.items():
        step = of["calm_median_ms"]
        table.add_row(
            name,
            f"{step:.1f}",
            f"{of['calm_worst_ms']:.1f}",
            f"{of['beside_median_ms']:.1f} ({of['beside_median_ms'] / step:.2f}x)",
            f"{of['beside_worst_median_ms']:.1f} ({of['beside_worst_median_ms'] / step:.2f}x)",
            f"{of['beside_worst_ms']:.1f}",
            f"{of['load_ms']:.0f}",
            f"{of['steps_beside']:.0f}",
        )
    console.print(table)
    if args.save:
        console.print(f"saved {save('host_tier', {'ms': numbers})}")


if __name__ == "__main__":
    main()
