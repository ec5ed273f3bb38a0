# SPDX-License-Identifier: MIT
"""llama.cpp through llama-cpp-python's C API: one llama_decode per step holds all sequences."""

import argparse
import os

import llama_cpp as llama
import numpy as np
from contender import serve

BATCH = 2048
MAX_SEQUENCES = 32
CONTEXT_PER_SEQUENCE = 2304


class Greedy:
    """Continuous batching by hand: prompts in, the most likely tokens out."""

    def __init__(self, path: str, threads: int) -> None:
        self._log = llama.llama_log_callback(lambda level, text, data: None)  # kept alive
        llama.llama_log_set(self._log, None)
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(
            path.encode(), llama.llama_model_default_params()
        )
        self.vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        params = llama.llama_context_default_params()
        params.n_seq_max = MAX_SEQUENCES
        params.n_ctx = CONTEXT_PER_SEQUENCE * MAX_SEQUENCES
        params.n_batch, params.n_ubatch = BATCH, 512
        params.n_threads = params.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, params)
        self.memory = llama.llama_get_memory(self.context)
        self.batch = llama.llama_batch_init(BATCH, 0, 1)

    def step(self, items: list[tuple[int, int, int, bool]]) -> list[int]:
        """items: (token, position, sequence, wants logits) → argmax where wanted, in order."""
        chosen: list[int] = []
        for start in range(0, len(items), BATCH):
            part = items[start : start + BATCH]
            self.batch.n_tokens = len(part)
            for i, (token, position, sequence, wanted) in enumerate(part):
                self.batch.token[i], self.batch.pos[i] = token, position
                self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
                self.batch.logits[i] = wanted
            if llama.llama_decode(self.context, self.batch):
                raise RuntimeError("llama_decode failed")
            wanted_rows = sum(item[3] for item in part)
            if wanted_rows:
                logits = np.ctypeslib.as_array(
                    llama.llama_get_logits(self.context), (wanted_rows, self.vocab)
                )
                chosen += logits.argmax(1).tolist()
        return chosen

    def generate(self, prompts: list[list[int]], output: int) -> list[list[int]]:
        llama.llama_memory_clear(self.memory, True)
        items = [
            (token, position, sequence, position == len(prompt) - 1)
            for sequence, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        outputs = [[token] for token in self.step(items)]
        while len(outputs[0]) < output:
            tokens = self.step(
                [
                    (tokens[-1], len(prompt) + len(tokens) - 1, sequence, True)
                    for sequence, (prompt, tokens) in enumerate(zip(prompts, outputs, strict=True))
                ]
            )
            for row, token in zip(outputs, tokens, strict=True):
                row.append(token)
        return outputs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", help="a GGUF file")
    args = parser.parse_args()
    engine = Greedy(args.model, len(os.sched_getaffinity(0)))
    name = f"llama.cpp ({llama.__version__}), f32"
    serve("llama.cpp", name, engine.vocab, engine.generate)


if __name__ == "__main__":
    main()
