# SPDX-License-Identifier: MIT
"""Tokens/s through Dynamo's real frontend: our worker with a null model against Dynamo's own
sample engine.

    python benchmarks/bench_frontend.py [--streams 64] [--tokens 128] [--rounds 5] [--save]

Neither side computes anything, so this measures the pipe: frontend, request plane, worker,
and on our side also the engine process and the scheduler. Two deployments are up at
once and serve in turns. The load generator shares the machine with both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import aiohttp
from results import save
from rich.console import Console
from rich.table import Table

from dynamo_tokenspeed.launch.deployment import PLANE_FLAGS, Deployment
from dynamo_tokenspeed.launch.dynamo_programs import FrontendCommand, WorkerCommand
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint

PROMPT_TOKENS = 32


class Round(NamedTuple):
    tokens_per_s: float
    first_token_ms: float  # median over streams


async def one_stream(
    session: aiohttp.ClientSession, url: str, model: str, tokens: int
) -> tuple[float, int]:
    """Seconds to the first token, and how many tokens the stream's usage reports."""
    started = time.perf_counter()
    first = None
    reported = 0
    body = {
        "model": model,
        "prompt": list(range(10, 10 + PROMPT_TOKENS)),
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }
    async with session.post(f"{url}/v1/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {await response.text()}")
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            if first is None:
                first = time.perf_counter() - started
            if b'"usage":{' in line:
                reported = json.loads(line[6:])["usage"]["completion_tokens"]
    assert first is not None
    return first, reported


async def one_round(url: str, model: str, streams: int, tokens: int) -> Round:
    timeout = aiohttp.ClientTimeout(300)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        started = time.perf_counter()
        done = await asyncio.gather(
            *(one_stream(session, url, model, tokens) for _ in range(streams))
        )
        seconds = time.perf_counter() - started
    if any(reported != tokens for _, reported in done):
        raise RuntimeError(f"a stream of {url} did not report {tokens} tokens")
    return Round(streams * tokens / seconds, 1e3 * statistics.median(first for first, _ in done))


def ours(model: Path) -> Deployment:
    command = ["-m", "dynamo.tokenspeed", "--model", str(model), "--max-num-seqs", "256"]
    return Deployment([WorkerCommand(argv=command)], FrontendCommand())


def sample_engine(model: Path) -> Deployment:
    """The same model directory gives its frontend the same tokenizer."""
    command = ["-m", "dynamo.common.backend.sample_main", *PLANE_FLAGS]
    command += ["--delay", "0", "--model-name", str(model)]
    return Deployment([WorkerCommand(argv=command, name="sample")], FrontendCommand())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    args = parser.parse_args()
    console = Console()
    numbers: dict[str, dict[str, float]] = {}
    table = Table(title=f"tokens/s through Dynamo's frontend, medians of {args.rounds} rounds")
    for column in ("streams", "ours", "sample engine", "ratio", "ours, first token", "sample's"):
        table.add_column(column, justify="right")
    directory = tempfile.TemporaryDirectory()
    model = write_random_checkpoint(
        Path(directory.name, "null"), arch="null", max_position_embeddings=4096
    )
    with directory, ours(model) as mine, sample_engine(model) as theirs:
        sides = {"ours": mine, "sample": theirs}
        models = {name: deployment.model for name, deployment in sides.items()}
        for streams in args.streams:
            rounds: dict[str, list[Round]] = {name: [] for name in sides}
            for turn in range(-1, args.rounds):  # turn -1 warms up
                for name, deployment in sides.items():
                    result = asyncio.run(
                        one_round(deployment.url, models[name], streams, args.tokens)
                    )
                    if turn >= 0:
                        rounds[name].append(result)
            speed = {n: statistics.median(r.tokens_per_s for r in v) for n, v in rounds.items()}
            first = {n: statistics.median(r.first_token_ms for r in v) for n, v in rounds.items()}
            ratio = speed["ours"] / speed["sample"]
            table.add_row(
                str(streams),
                f"{speed['ours']:.0f}",
                f"{speed['sample']:.0f}",
                f"{ratio:.2f}x",
                f"{first['ours']:.1f} ms",
                f"{first['sample']:.1f} ms",
            )
            numbers[str(streams)] = {
                "ours": speed["ours"],
                "sample_engine": speed["sample"],
                "ratio": ratio,
                "ours_first_token_ms": first["ours"],
                "sample_first_token_ms": first["sample"],
            }
    console.print(table)
    if args.save:
        console.print(f"saved {save('frontend', {'tokens': args.tokens, 'by_streams': numbers})}")


if __name__ == "__main__":
    main()
