# SPDX-License-Identifier: MIT
"""What a TPS floor gives to users and costs in throughput: a Pareto curve.

Agents in a closed loop (agentic_load.py) on two engines, once for each floor:

* simulated B200: the real scheduler, and steps that last as long as simulated_b200.py says. 96
  agents, conversations of 50K tokens and more, dozens of turns. Needs ts_scheduler and numpy only.
* CPU: the real engine on recipes/tiny-kimi, by the clock, with contexts and floors that fit it.

    python benchmarks/bench_tps_floor.py [--engine simulated|cpu] [--save]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simulated_b200
import ts_scheduler
from agentic_load import AgenticLoad, Served, Traffic, served
from pareto_plot import Panel, Point, write_svg
from results import RESULTS, save

ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Result:
    floor: float
    served: Served
    held_prefill_tokens: int
    held_admissions: int


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    unit: str
    gpus: int
    floors: tuple[float, ...]
    traffic: Traffic
    warm_up: float  # seconds that are not counted
    seconds: float  # in all
    run: Callable[[Case, AgenticLoad, float], ts_scheduler.FloorReport]

    def measure(self, floor: float) -> Result:
        load = AgenticLoad(self.traffic)
        report = self.run(self, load, floor)
        return Result(
            floor,
            served(load, self.warm_up, self.seconds),
            report.held_prefill_tokens,
            report.held_admissions,
        )


def simulate(case: Case, load: AgenticLoad, floor: float) -> ts_scheduler.FloorReport:
    """The step loop without overlap, on a clock that steps and pauses move."""
    scheduler = ts_scheduler.Scheduler(
        ts_scheduler.SchedulerConfig(
            page_size=64,
            num_pages=131_072,  # 8.4 M tokens: 37 GB on each GPU
            max_num_seqs=128,
            max_model_len=131_072,
            max_num_batched_tokens=8192,
            chunked_prefill_size=8192,
            vocab_size=case.traffic.vocab_size,
            min_tps_per_user=floor,
        )
    )
    sampled = np.full(128, 7, np.int32)
    now = 0.0
    while now < case.seconds:
        for request in load.due(now):
            turn = load.turns[request]
            scheduler.submit(request, turn.prompt, max_tokens=turn.max_tokens)
        plan = scheduler.plan()
        if plan is None:
            now = load.next_turn
            continue
        seconds = simulated_b200.step_seconds(plan.row_start, plan.row_tokens)
        now += seconds
        sampling = int(np.count_nonzero(plan.row_samples))
        output = scheduler.commit(plan.step, sampled[:sampling], seconds=seconds)
        load.receive(output.request, output.token, output.finish, now)
    return scheduler.floor()


def serve_on_cpu(case: Case, load: AgenticLoad, floor: float) -> ts_scheduler.FloorReport:
    """The engine's own step loop, between an inbox and an outbox that are the agents."""
    from dynamo_tokenspeed.engine import startup, step_loop
    from dynamo_tokenspeed.engine.inbox import submit
    from dynamo_tokenspeed.protocol import EngineConfig, Submit

    engine = startup.build(
        EngineConfig(
            model=str(ROOT / "recipes" / "tiny-kimi"),
            num_threads=1,
            max_model_len=4096,
            num_pages=4096,
            min_tps_per_user=floor,
            overlap_schedule=False,
        )
    )
    begin = time.perf_counter()

    class Agents:
        def apply(self, scheduler: ts_scheduler.Scheduler, wait: bool) -> bool:
            if wait:
                time.sleep(max(0.0, begin + load.next_turn - time.perf_counter()))
            now = time.perf_counter() - begin
            for request in load.due(now):
                turn = load.turns[request]
                submit(scheduler, Submit(request, turn.prompt.tobytes(), turn.max_tokens))
            return now < case.seconds

        def send_admitted(self, *_: Any) -> None:
            pass

        def send_step(self, output: ts_scheduler.Output, *_: Any) -> None:
            now = time.perf_counter() - begin
            load.receive(output.request, output.token, output.finish, now)

        def send_stats(self, *_: Any) -> None:
            pass

    agents = Agents()
    step_loop.run(engine.scheduler, engine.executor, agents, agents, None)
    return engine.scheduler.floor()


SIMULATED = Case(
    name="simulated B200",
    unit="output tokens/min per GPU",
    gpus=simulated_b200.GPUS,
    floors=(0, 30, 70, 100, 150, 200),
    traffic=Traffic(
        agents=96,
        shared=8_000,
        first=(40_000, 60_000),
        more=(300, 2_500),
        output=(100, 800),
        turns=(12, 36),
        think=(0.5, 4.0),
        ramp=60.0,
        vocab_size=150_000,
    ),
    warm_up=90.0,
    seconds=300.0,
    run=simulate,
)
CPU = Case(
    name="tiny-kimi on this CPU",
    unit="output tokens/min",
    gpus=1,
    floors=(0, 15, 30, 60, 90, 120),
    traffic=Traffic(
        agents=4,
        shared=200,
        first=(500, 1_000),
        more=(50, 150),
        output=(100, 250),
        turns=(3, 6),
        think=(0.2, 1.0),
        ramp=1.0,
        vocab_size=300,
    ),
    warm_up=4.0,
    seconds=22.0,
    run=serve_on_cpu,
)
CASES = {"simulated": SIMULATED, "cpu": CPU}


def measure(case: Case) -> list[Result]:
    print(f"\n{case.name}: {case.traffic.agents} agents, {case.seconds:.0f} s")
    print(f"{'floor':>6} | {case.unit:>25} | {'TPS p1':>7} {'p50':>6} | {'gap max':>8} | ", end="")
    print(f"{'first token p50':>15} {'p99':>6} | {'held tokens':>11} {'admissions':>10}")
    results = []
    for floor in case.floors:
        result = case.measure(floor)
        got = result.served
        print(
            f"{floor:>6.0f} | {got.tokens_per_minute / case.gpus:>25,.0f} | {got.tps_p1:>7.1f} "
            f"{got.tps_p50:>6.1f} | {got.longest_gap:>6.2f} s | {got.first_token_p50:>13.2f} s "
            f"{got.first_token_p99:>4.1f} s | {result.held_prefill_tokens:>11,} "
            f"{result.held_admissions:>10,}",
            flush=True,
        )
        results.append(result)
    return results


def panel(case: Case, results: list[Result]) -> Panel:
    points = [
        Point(r.floor, r.served.tokens_per_minute / case.gpus, r.served.tps_p1) for r in results
    ]
    return Panel(case.name, case.unit, points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=CASES, help="this one only")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    arguments = parser.parse_args()
    cases = [CASES[arguments.engine]] if arguments.engine else list(CASES.values())
    measured = [(case, measure(case)) for case in cases]
    if arguments.save:
        numbers = {
            case.name: {
                "unit": case.unit,
                "gpus": case.gpus,
                "by_floor": [dataclasses.asdict(result) for result in results],
            }
            for case, results in measured
        }
        print(f"saved {save('tps_floor', numbers)}")
        plot = RESULTS / "tps_floor.svg"
        write_svg(plot, [panel(case, results) for case, results in measured])
        print(f"saved {plot}")


if __name__ == "__main__":
    main()
