# SPDX-License-Identifier: MIT
"""Host time of a whole engine step with a model that computes nothing (`NullForCausalLM`).

Everything that the host does for a step of N decoding sequences with L tokens of context each:
plan, patch the slot tables, flatten the rows, sample, append, commit, encode and send the outputs
over ZeroMQ. What remains of the model is one view of its logits.

    python benchmarks/bench_engine_step.py [--save]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import ts_scheduler
import zmq
from results import save

from dynamo_tokenspeed.engine import startup, step_loop
from dynamo_tokenspeed.engine.inbox import submit
from dynamo_tokenspeed.engine.launched_step import StepResult
from dynamo_tokenspeed.engine.outbox import Outbox
from dynamo_tokenspeed.protocol import EngineConfig, SamplingParams, Submit

CASES = [(1, 1_024), (8, 1_024), (64, 1_024), (64, 51_200), (64, 120_000)]
ASKED = {
    "greedy": SamplingParams(),
    "temperature": SamplingParams(temperature=0.7, seed=1),
    "penalties": SamplingParams(presence_penalty=0.5, frequency_penalty=0.5),
}
# Greedy in every case: the target. What else may be asked, in the last of the short cases.
RUNS = [(case, "greedy") for case in CASES] + [
    ((64, 1_024), "temperature"),
    ((64, 1_024), "penalties"),
    ((64, 51_200), "penalties"),
]
STEPS = 400
ENDPOINT = "inproc://steps"
VOCAB_SIZE = 256  # few: choosing among them is the cost of the sampler, not of the step


class StepsOfAll(Outbox):
    """Notes when a step in which every sequence decoded has been sent."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], sequences: int) -> None:
        super().__init__(context, ENDPOINT)
        self._sequences = sequences
        self.ended: list[float] = []

    def send_step(
        self, output: ts_scheduler.Output, result: StepResult, scheduler: ts_scheduler.Scheduler
    ) -> None:
        super().send_step(output, result, scheduler)
        if len(output.request) == self._sequences:
            self.ended.append(time.perf_counter())

    def apply(self, scheduler: ts_scheduler.Scheduler, wait: bool) -> bool:
        """Stands where the inbox does: brings nothing, and ends the loop after STEPS steps."""
        return len(self.ended) <= STEPS


def measure(model: Path, sequences: int, context: int, sampling: SamplingParams) -> float:
    """Median microseconds of a step in which every sequence decodes."""
    config = EngineConfig(
        model=str(model),
        page_size=64,
        max_num_seqs=64,
        max_num_batched_tokens=65_536,
        chunked_prefill_size=65_536,
        num_pages=max(2_048, sequences * (context + 4 * STEPS) // 64),
        enable_prefix_caching=False,
    )
    engine = startup.build(config)
    zmq_context = zmq.Context()
    sink = zmq_context.socket(zmq.PULL)
    sink.set_hwm(0)
    sink.bind(ENDPOINT)
    outbox = StepsOfAll(zmq_context, sequences)
    rng = np.random.default_rng(0)
    for request_id in range(sequences):
        prompt = rng.integers(0, VOCAB_SIZE, context, dtype=np.int32)
        request = Submit(
            request_id=request_id,
            token_ids=prompt.tobytes(),
            max_tokens=4 * STEPS,
            sampling=sampling,
            ignore_eos=True,
        )
        submit(engine.scheduler, request)
    step_loop.run(engine.scheduler, engine.executor, outbox, outbox, None)
    seconds = np.diff(outbox.ended)
    outbox.close()
    sink.close()
    zmq_context.term()
    return 1e6 * statistics.median(seconds.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/engine_step.json"
    )
    args = parser.parse_args()
    numbers: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder)
        (model / "config.json").write_text(
            json.dumps(
                {
                    "architectures": ["NullForCausalLM"],
                    "vocab_size": VOCAB_SIZE,
                    "max_position_embeddings": 131_072,
                }
            )
        )
        print(f"{'sequences x context':>20}  {'asked':<12} {'us a step':>9}")
        for (sequences, context), asked in RUNS:
            microseconds = measure(model, sequences, context, ASKED[asked])
            numbers[f"{sequences}x{context}_{asked}_us"] = round(microseconds, 1)
            print(f"{sequences:>8} x {context:>9}  {asked:<12} {microseconds:>9.1f}", flush=True)
    if args.save:
        print(save("engine_step", numbers))


if __name__ == "__main__":
    main()
