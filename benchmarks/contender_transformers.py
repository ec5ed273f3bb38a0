# SPDX-License-Identifier: MIT
"""transformers' generate(), greedy, with its default attention for CPU."""

import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from contender import serve


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=getattr(torch, args.dtype), attn_implementation="sdpa"
    ).eval()

    @torch.inference_mode()
    def generate(prompts: list[list[int]], output: int) -> list[list[int]]:
        ids = torch.tensor(prompts)
        tokens = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=output,
            max_new_tokens=output,
            pad_token_id=0,
        )
        return [row[ids.shape[1] :].tolist() for row in tokens]

    name = f"transformers {transformers.__version__}, {args.dtype}"
    serve(f"transformers-{args.dtype}", name, model.config.vocab_size, generate)


if __name__ == "__main__":
    main()
