# SPDX-License-Identifier: MIT
"""Train tiny-kimi from scratch on the running Python's standard library, on one CPU core.

    python train.py --minutes 45 --work /tmp/tiny-kimi

The learning rate follows the time spent, so the run ends annealed on any machine; the data and the
initial weights follow from the seed alone. Killed and started again, it goes on from its last
checkpoint in --work. `--minutes 0` exports what that checkpoint holds.
"""

import argparse
import os
import random
import sys
import time
from pathlib import Path

import torch
from architecture import CONFIG, TinyKimi
from corpus import ChatWriter, SourceFile, split
from export import compare, export
from muon import Muon
from tokenizer import learn, save
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy

HERE = Path(__file__).parent
TOKENS_PER_STEP = 4096
CHAT_SHARE = 0.45
# Short rows first, they are cheap; the last 40 % of the time sees every length served.
EARLY_LENGTHS, LATE_LENGTHS, LATE_FROM = (512,), (512, 1024, 2048, 4096), 0.6
MUON_RATE, ADAM_RATE = 4e-3, 2e-3
BALANCE_SPEED = 3e-3
SAVE_EVERY_S, EVALUATE_EVERY_S = 120, 300


class Data:
    """Rows of tokens: slices of the files' stream, and chats about the files."""

    def __init__(self, files: list[SourceFile], tokenizer: Tokenizer, seed: int):
        from transformers import AutoTokenizer

        self._tokenizer, self._seed = tokenizer, seed
        self._template = AutoTokenizer.from_pretrained(HERE)
        self._rng = random.Random(seed)
        self._chats = ChatWriter(files, self._rng)
        self._files = [document(f, tokenizer) for f in files]
        self.tokens_per_epoch = sum(map(len, self._files))
        self.position = 0  # in the endless stream of shuffled epochs
        self._epoch, self._stream = -1, []

    def batch(self, step: int, length: int) -> torch.Tensor:
        """[TOKENS_PER_STEP / length, length + 1]; the same for the same step and position."""
        self._rng.seed(f"{self._seed}/{step}")
        return torch.tensor([self._row(length + 1) for _ in range(TOKENS_PER_STEP // length)])

    def _row(self, length: int) -> list[int]:
        chat = self._rng.random() < CHAT_SHARE
        return self._chat_row(length) if chat else self._file_row(length)

    def _file_row(self, length: int) -> list[int]:
        epoch, start = divmod(self.position, self.tokens_per_epoch)
        if start + length > self.tokens_per_epoch:
            self.position, epoch, start = (epoch + 1) * self.tokens_per_epoch, epoch + 1, 0
        if epoch != self._epoch:
            order = random.Random(f"{self._seed}/epoch/{epoch}").sample(
                self._files, len(self._files)
            )
            self._epoch, self._stream = epoch, [t for ids in order for t in ids]
        self.position += length - 1  # the last token is only a target, so it is read again
        return self._stream[start : start + length]

    def _chat_row(self, length: int) -> list[int]:
        row: list[int] = []
        while len(row) < length:
            turns = self._rng.choice((1, 1, 2, 4) if length < 2000 else (1, 4, 12, 24))
            messages, tools = self._chats.draw(turns)
            text = self._template.apply_chat_template(messages, tools=tools, tokenize=False)
            row += self._tokenizer.encode(text + "[EOS]").ids
        return row[:length]


def document(file: SourceFile, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(f"[BOS]{file.text}[EOS]").ids


class Trainer:
    def __init__(self, seed: int):
        torch.manual_seed(seed)
        self.model = TinyKimi()
        inner, outer = [], []
        for name, parameter in self.model.named_parameters():
            plain = parameter.ndim < 2 or any(s in name for s in ("embed", "lm_head", "gate.w"))
            (outer if plain else inner).append(parameter)
        self.optimizers = [
            Muon(inner, MUON_RATE),
            torch.optim.AdamW(outer, ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.step, self.seconds = 0, 0.0

    def train_step(self, rows: torch.Tensor, rate: float) -> tuple[float, float]:
        """One step at `rate` of the peak learning rate: (loss, worst imbalance of experts)."""
        loss = self.model.backward_loss(rows)
        for optimizer, peak in zip(self.optimizers, (MUON_RATE, ADAM_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss, max(r.rebalance(BALANCE_SPEED * rate) for r in self.model.routers())

    def save(self, path: Path, data: Data) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "position": data.position,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path, data: Data) -> None:
        state = torch.load(path)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]
        data.position = state["position"]


def learning_rate(done: float) -> float:
    """Share of the peak rate when `done` of the time is spent: short warm-up, long way to zero."""
    return min(1.0, done / 0.02 + 0.01, max(0.0, (1 - done) / 0.7))


@torch.no_grad()
def held_out_loss(model: TinyKimi, rows: torch.Tensor) -> float:
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [
            cross_entropy(model(r[:, :-1]).float().flatten(0, 1), r[:, 1:].flatten()).item()
            for r in rows.split(4)
        ]
    model.train()
    return sum(losses) / len(losses)


def train(trainer: Trainer, data: Data, held_out: torch.Tensor, minutes: float, path: Path) -> None:
    saved = evaluated = trainer.seconds
    clock = time.monotonic() - trainer.seconds
    while (done := trainer.seconds / (60 * minutes)) < 1:
        lengths = EARLY_LENGTHS if done < LATE_FROM else LATE_LENGTHS
        rows = data.batch(trainer.step, lengths[trainer.step % len(lengths)])
        loss, imbalance = trainer.train_step(rows, learning_rate(done))
        trainer.seconds = time.monotonic() - clock
        if trainer.step % 10 == 0:
            tokens = trainer.step * TOKENS_PER_STEP
            print(
                f"step {trainer.step:5} {done:6.1%} length {rows.shape[1] - 1:4} loss {loss:.3f} "
                f"imbalance {imbalance:.2f} tokens {tokens / 1e6:.2f}M "
                f"epochs {data.position / data.tokens_per_epoch:.2f} "
                f"{tokens / trainer.seconds:.0f} tokens/s",
                flush=True,
            )
        if trainer.seconds - saved > SAVE_EVERY_S:
            trainer.save(path, data)
            saved = trainer.seconds
        if trainer.seconds - evaluated > EVALUATE_EVERY_S:
            print(f"held-out loss {held_out_loss(trainer.model, held_out):.3f}", flush=True)
            evaluated = trainer.seconds
    trainer.save(path, data)


def keep_freed_memory() -> None:
    """Start again with an allocator that reuses large blocks: page faults cost a third else."""
    settings = {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(10**11),
        "MALLOC_TOP_PAD_": str(2**29),
        "MALLOC_ARENA_MAX": "1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
    if "MALLOC_TOP_PAD_" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=45, help="wall time of the whole run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)

    files, held_out_files = split()
    tokenizer = learn(f.text for f in files)
    save(tokenizer, HERE, CONFIG["max_position_embeddings"])
    data = Data(files, tokenizer, args.seed)
    held_out = torch.tensor([t for f in held_out_files for t in document(f, tokenizer)])
    held_out = held_out[: len(held_out) // 513 * 513].view(-1, 513)[::8]
    trainer = Trainer(args.seed)
    size = sum(p.numel() for p in trainer.model.parameters())
    print(f"{len(files)} files, {data.tokens_per_epoch} tokens, {size} parameters", flush=True)

    checkpoint = args.work / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint, data)
        print(f"going on from step {trainer.step}", flush=True)
    if args.minutes:
        train(trainer, data, held_out, args.minutes, checkpoint)
    print(f"held-out loss {held_out_loss(trainer.model, held_out):.3f}")
    export(trainer.model, HERE)
    difference = compare(trainer.model, HERE, held_out[:2, :512])
    print(f"exported to {HERE}; largest logit difference from transformers {difference:.2e}")


if __name__ == "__main__":
    main()
