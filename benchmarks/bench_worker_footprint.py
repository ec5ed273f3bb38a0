# SPDX-License-Identifier: MIT
"""Time to serve and peak memory of one worker on the shipped tiny model.

    python benchmarks/bench_worker_footprint.py [--save]

The worker starts beside a running frontend; "ready" is when the frontend can route to it.
Then 32 chats with prompts of some 2,000 tokens run through it. Peak memory is the
kernel's own high-water mark (VmHWM) of the worker process and of its engine process.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path

import aiohttp
from results import save
from rich.console import Console

from dynamo_tokenspeed.launch.deployment import Deployment
from dynamo_tokenspeed.launch.dynamo_programs import FrontendCommand, WorkerCommand

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "recipes" / "tiny-kimi"
CHATS, PROMPT_WORDS, TOKENS = 32, 600, 64


def peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmHWM")


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def chats(url: str, model: str) -> None:
    words = (ROOT / "README.md").read_text().split()
    timeout = aiohttp.ClientTimeout(600)

    async def one(session: aiohttp.ClientSession, index: int) -> None:
        text = " ".join(words[(index * 7 + k) % len(words)] for k in range(PROMPT_WORDS))
        body = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": TOKENS,
        }
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {await response.text()}")
            await response.read()

    async with aiohttp.ClientSession(timeout=timeout) as session:
        await asyncio.gather(*(one(session, index) for index in range(CHATS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    args = parser.parse_args()
    command = WorkerCommand(argv=["-m", "dynamo.tokenspeed", "--model", str(MODEL)])
    ready: list[float] = []
    peaks: dict[str, float] = {}
    for _ in range(args.starts):
        with Deployment([], FrontendCommand()) as deployment:
            started = time.perf_counter()
            [worker] = deployment.add_workers(command)
            ready.append(time.perf_counter() - started)
            asyncio.run(chats(deployment.url, deployment.model))
            processes = {"worker": worker.pid, "engine": children(worker.pid)[0]}
            for name, pid in processes.items():
                peaks[name] = max(peaks.get(name, 0.0), peak_mib(pid))
    numbers = {
        "ready_s": round(statistics.median(ready), 2),
        "peak_mib": {name: round(peak) for name, peak in peaks.items()},
        "peak_mib_total": round(sum(peaks.values())),
    }
    console = Console()
    console.print(f"ready to serve in {numbers['ready_s']} s (median of {args.starts} starts)")
    console.print(f"peak memory {numbers['peak_mib_total']} MiB: {numbers['peak_mib']}")
    if args.save:
        console.print(f"saved {save('worker_footprint', numbers)}")


if __name__ == "__main__":
    main()
