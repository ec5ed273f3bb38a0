# SPDX-License-Identifier: MIT
"""One engine under measurement, as a process that takes its orders from stdin.

Standard library only: each contender runs in an environment of its own. The parent
(`bench_engine_cpu.py`) keeps all contenders loaded and lets them run in turns, so
that both sides of a ratio see the same machine.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable

Generate = Callable[[list[list[int]], int], list[list[int]]]
"""(prompts, output tokens) → the generated tokens, exactly that many per prompt."""


def prompts(batch: int, length: int, seed: int, vocab: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(10, vocab) for _ in range(length)] for _ in range(batch)]


def serve(name: str, description: str, vocab: int, generate: Generate) -> None:
    """Answer orders `{"batch", "prompt", "output", "seed"}` with `{"seconds"}` until stdin ends."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what the engine prints is not an answer
    print(json.dumps({"ready": name, "description": description}), file=out, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        inputs = prompts(order["batch"], order["prompt"], order["seed"], vocab)
        started = time.perf_counter()
        outputs = generate(inputs, order["output"])
        seconds = time.perf_counter() - started
        assert [len(o) for o in outputs] == [order["output"]] * order["batch"], name
        print(json.dumps({"seconds": seconds, "first": outputs[0][:8]}), file=out, flush=True)
