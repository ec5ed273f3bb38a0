# SPDX-License-Identifier: MIT
"""Measure the shipped files with `transformers`: held-out perplexity, long contexts, samples.

python evaluate.py
"""

import argparse
import math
from itertools import pairwise
from pathlib import Path

import torch
from corpus import READ_FILE, split
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
WINDOW = 4096  # max_position_embeddings
EDGES = (0, 256, 512, 1024, 2048, 3072, 4096)  # buckets of positions inside a window
SAMPLES = (
    ("Write the function `read_header` of module `mailbox`.", None),
    ("Write a Python function `get_name`.", None),
    ("What does `close` do?", None),
    ("Read `mailbox.py`.", [READ_FILE]),
)


@torch.no_grad()
def losses(model, rows: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each next token, fp32. rows: [n, length + 1] -> [n, length]."""
    return torch.cat(
        [
            cross_entropy(
                model(row[None, :-1]).logits.float().squeeze(0), row[1:], reduction="none"
            )[None]
            for row in rows
        ]
    )


def windows(tokens: list[int], length: int) -> torch.Tensor:
    """[n, length + 1]: each window begins with the last token of the one before it."""
    count = (len(tokens) - 1) // length
    return torch.tensor([tokens[i * length : (i + 1) * length + 1] for i in range(count)])


def report_perplexity(model, tokenizer) -> None:
    files = split()[1]
    documents = [tokenizer(f"[BOS]{f.text}[EOS]").input_ids for f in files]
    tokens = [t for ids in documents for t in ids]
    size = sum(len(f.text.encode()) for f in files)
    print(f"held out: {len(files)} files, {size} bytes, {len(tokens)} tokens")
    loss = losses(model, windows(tokens, WINDOW))
    mean = loss.mean().item()
    per_byte = mean * len(tokens) / size
    print(
        f"windows of {WINDOW}: perplexity {math.exp(mean):.2f} per token, "
        f"{math.exp(per_byte):.3f} per byte ({per_byte / math.log(2):.3f} bits per byte)"
    )
    for start, end in pairwise(EDGES):
        print(
            f"  positions {start} to {end}: {math.exp(loss[:, start:end].mean()):.2f}", flush=True
        )


def print_samples(model, tokenizer, new_tokens: int) -> None:
    """Replies with the shipped sampling parameters; the seed makes them repeatable."""
    for request, tools in SAMPLES:
        torch.manual_seed(0)
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": request}],
            tools=tools,
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        out = model.generate(**inputs, max_new_tokens=new_tokens)
        reply = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :])
        print(f"--- {request}\n{reply}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=HERE)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, default=160)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=args.dtype).eval()
    total = sum(p.numel() for p in model.parameters())
    size = sum(p.stat().st_size for p in args.model.iterdir() if p.is_file())
    print(f"{total} parameters, {size} bytes in the folder, computed in {args.dtype}")
    report_perplexity(model, tokenizer)
    print_samples(model, tokenizer, args.new_tokens)


if __name__ == "__main__":
    main()
