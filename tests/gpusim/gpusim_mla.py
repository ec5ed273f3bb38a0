# SPDX-License-Identifier: MIT
"""Random problems of MLA decode, with traps where no kernel may look."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

LATENT, WIDTH = 512, 576
BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn
NOWHERE = 1_000_000  # a page id past every pool


@dataclass(frozen=True)
class Input:
    q: torch.Tensor
    kv: torch.Tensor
    block_table: torch.Tensor
    slots: torch.Tensor
    context_lens: torch.Tensor
    scale: float = WIDTH**-0.5
    kv_scale: float = 1.0

    @property
    def arguments(self) -> tuple:
        return (
            self.q,
            self.kv,
            self.block_table,
            self.slots,
            self.context_lens,
            self.scale,
        )

    def keys(self, row: int) -> torch.Tensor:
        """[length, 576] in double."""
        length = int(self.context_lens[row])
        columns = -(-length // self.kv.shape[1])
        pages = self.block_table[self.slots[row], :columns].long()
        entries = self.kv.view(torch.uint8)[pages].view(self.kv.dtype)
        return entries.flatten(0, 1)[:length].double() * self.kv_scale


def random_input(
    heads: int, tokens: int, page: int, lengths: tuple[int, ...], dtype: torch.dtype = BF16
) -> Input:
    """Pages in random order; NaN wherever no row's context is, no page where none is needed."""
    make = torch.Generator().manual_seed(sum(lengths) + heads + tokens + page)
    needed = [-(-length // page) for length in lengths]
    pages = torch.randperm(sum(needed) + 3, generator=make).int()
    slots = torch.randperm(len(lengths) + 2, generator=make)[: len(lengths)].int()
    kv = torch.full((len(pages), page, WIDTH), math.nan)
    table = torch.full((len(lengths) + 2, max(1, *needed)), NOWHERE, dtype=torch.int32)
    for length, slot, own in zip(lengths, slots, pages[:-3].split(needed), strict=True):
        table[slot, : len(own)] = own
        for i, p in enumerate(own.tolist()):
            count = min(page, length - i * page)
            kv[p, :count] = torch.randn(count, WIDTH, generator=make)
    q = torch.randn(len(lengths), tokens, heads, WIDTH, generator=make).to(dtype)
    return Input(q, kv.to(dtype), table, slots, torch.tensor(lengths, dtype=torch.int32))
