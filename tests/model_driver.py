# SPDX-License-Identifier: MIT
"""Drives a model by hand: its own page allocator, any mix of rows in a step."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dynamo_tokenspeed.model import CausalLM, ForwardBatch, KVPool


@dataclass
class CachedSequence:
    """Tokens so far, how many of them are in the cache, and the pages that hold them."""

    tokens: list[int]
    cached: int = 0
    pages: list[int] = field(default_factory=list)

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.cached


class ModelDriver:
    """Pages are handed out in random order, and unwritten ones hold huge values, so that reading
    a wrong one shows."""

    def __init__(self, model: CausalLM, page_size: int, num_pages: int = 256, seed: int = 0):
        dtype = model.embedding.dtype
        self.model = model
        self.pool = KVPool(model.kv_spec, num_pages, page_size, dtype, "cpu")
        self.pool.kv.fill_(1e4)
        self.free = list(range(num_pages))
        random.Random(seed).shuffle(self.free)

    def sequence(
        self, tokens: Sequence[int], prefix_of: CachedSequence | None = None
    ) -> CachedSequence:
        """A new sequence; with `prefix_of` it shares that one's full cached pages of the common
        prefix, its last token excepted, as a prefix cache would."""
        new = CachedSequence(list(tokens))
        if prefix_of is not None:
            common = 0
            for mine, other in zip(tokens[:-1], prefix_of.tokens[: prefix_of.cached], strict=False):
                if mine != other:
                    break
                common += 1
            pages = common // self.pool.page_size
            new.pages = prefix_of.pages[:pages]
            new.cached = pages * self.pool.page_size
        return new

    def step(self, rows: Sequence[tuple[CachedSequence, int]], sample: bool = True) -> list[Tensor]:
        """Compute the next `n` tokens of each sequence; logits after the last one, row by row.

        The result is in the order of `rows`.
        """
        batch, order = self.batch(rows)
        if not sample:
            batch = replace(batch, sample_index=batch.sample_index[:0])
        logits = self.model.forward(batch, self.pool)
        assert logits.dtype == torch.float32
        assert len(logits) == len(batch.sample_index)
        by_row = dict(zip(order, logits.unbind(0), strict=False))
        return [by_row[i] for i in range(len(rows)) if sample]

    def batch(self, rows: Sequence[tuple[CachedSequence, int]]) -> tuple[ForwardBatch, list[int]]:
        """The step's batch, sampling each row's last token, and which of `rows` each row is:
        one-token rows are put first, and absorbed."""
        order = sorted(range(len(rows)), key=lambda i: rows[i][1] > 1)
        absorbed = sum(n == 1 for _, n in rows)
        tokens, positions, cache_index, slots, ends, context, table = [], [], [], [], [], [], []
        page_size = self.pool.page_size
        for slot, i in enumerate(order):
            sequence, n = rows[i]
            assert 1 <= n <= sequence.pending
            start, end = sequence.cached, sequence.cached + n
            while len(sequence.pages) * page_size < end:
                sequence.pages.append(self.free.pop())
            tokens += sequence.tokens[start:end]
            positions += range(start, end)
            cache_index += [
                sequence.pages[p // page_size] * page_size + p % page_size
                for p in range(start, end)
            ]
            slots += [slot] * n
            ends.append(len(tokens))
            context.append(end)
            table.append(sequence.pages)
            sequence.cached = end
        columns = max(map(len, table))
        int32 = functools.partial(torch.tensor, dtype=torch.int32)
        batch = ForwardBatch(
            token_ids=torch.tensor(tokens),
            positions=torch.tensor(positions),
            cache_index=torch.tensor(cache_index),
            block_table=int32([pages + [0] * (columns - len(pages)) for pages in table]),
            token_slots=int32(slots),
            absorbed_context_lens=int32([p + 1 for p in positions[:absorbed]]),
            expanded_slots=int32(range(absorbed, len(rows))),
            query_start=int32([0, *(end - absorbed for end in ends[absorbed:])]),
            context_lens=int32(context[absorbed:]),
            sample_index=torch.tensor(ends) - 1,
        )
        return batch, order
