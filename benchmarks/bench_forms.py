# SPDX-License-Identifier: MIT
"""What the form of attention costs: prompts and next turns, by `--absorb-from`.

    python benchmarks/bench_forms.py [--runs 5] [--save]

The model of bench_engine_cpu.py with a longer context, three engines in turns in one run: every
prompt token expanded, the default, and every token absorbed (`--deterministic`). A next turn is a
few tokens behind a context that is cached.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

from results import save
from rich.console import Console
from rich.table import Table

from dynamo_tokenspeed.engine.offline import OfflineEngine
from dynamo_tokenspeed.protocol import EngineConfig
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint

MODEL = Path(__file__).parent / ".models" / "bench-51m-32k"
CONTEXT = 20_480
FORMS = {"expanded": 2**31 - 1, "default": EngineConfig(model="").absorb_from, "absorbed": 0}
COLD = (512, 2048, 8192)
TURNS = (1, 16, 128, 512)
BEHIND = (1536, 20_000)


def engine(absorb_from: int) -> OfflineEngine:
    return OfflineEngine(
        EngineConfig(
            model=str(MODEL), dtype="bfloat16", max_model_len=CONTEXT, absorb_from=absorb_from
        )
    )


def seconds(of: OfflineEngine, prompt: list[int]) -> float:
    started = time.perf_counter()
    of.generate([prompt], max_tokens=1)
    return time.perf_counter() - started


def measure(runs: int) -> dict[str, dict[str, float]]:
    """Medians in ms by case and form."""
    rng = random.Random(0)
    engines = {name: engine(absorb_from) for name, absorb_from in FORMS.items()}
    vocab = next(iter(engines.values())).vocab_size

    def tokens(count: int) -> list[int]:
        return [rng.randrange(10, vocab) for _ in range(count)]

    taken: dict[str, dict[str, list[float]]] = {}

    def note(case: str, name: str, prompt: list[int]) -> None:
        taken.setdefault(case, {}).setdefault(name, []).append(seconds(engines[name], prompt))

    for length in COLD:
        for _ in range(runs):
            prompt = tokens(length)
            for name in engines:
                note(f"cold prompt of {length:,}", name, prompt)
    for behind in BEHIND:
        context = tokens(behind // 16 * 16)
        for of in engines.values():
            seconds(of, [*context, 1])
        for new in TURNS:
            for _ in range(runs):
                prompt = context + tokens(new)
                for name in engines:
                    note(f"{new} new behind {behind:,} cached", name, prompt)
    return {
        case: {name: 1e3 * statistics.median(values) for name, values in by_name.items()}
        for case, by_name in taken.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    args = parser.parse_args()
    console = Console()
    if not MODEL.exists():
        write_random_checkpoint(MODEL, preset="bench-51m", max_position_embeddings=32_768)
    numbers = measure(args.runs)
    table = Table(title=f"time to the first token in ms, medians of {args.runs}")
    table.add_column("case")
    for name in FORMS:
        table.add_column(name, justify="right")
    for case, by_name in numbers.items():
        expanded = by_name["expanded"]
        cells = [f"{ms:.1f} ({ms / expanded:.2f}x)" for ms in by_name.values()]
        table.add_row(case, *cells)
    console.print(table)
    if args.save:
        console.print(f"saved {save('forms', {'ms_to_first_token': numbers})}")


if __name__ == "__main__":
    main()
