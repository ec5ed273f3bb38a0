# SPDX-License-Identifier: MIT
"""Multi-head latent attention over a paged cache, in tiles that fit the CPU's caches.

A tile is as many rows as fit a budget, padded to its longest, so a row has a tile of its own only
when it is worth one. A context beyond the budget is cut into blocks whose results are combined by
their log-sum-exp, as in FlashDecoding (Dao et al., 2023), which bounds the memory of a long one.

PyTorch's scaled_dot_product_attention is not used: it wants keys and values of one width, and on a
CPU it takes 1.3 to 3 times as long (benchmarks/bench_kernels.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ts_kernels.torch.dense import batched_product, product

_DECODE_TILE = 2**21  # bytes of gathered cache entries
_PREFILL_TILE = 1024  # tokens of context in a tile of several rows
_PREFILL_BLOCK = 4096  # tokens of context expanded at once
_SCORES_AT_ONCE = 2**20  # elements, 4 MB in fp32
_ROUNDING = 64  # contexts are padded to a multiple of it: oneDNN compiles for every new size
_MASKED = -1e30  # finite, so that a block without a visible entry gets weight 0, not NaN


def mla_cache_write(kv: Tensor, latent: Tensor, rope_key: Tensor, cache_index: Tensor) -> None:
    entries = torch.cat([latent, rope_key], dim=-1)
    kv.view(-1, kv.shape[-1]).index_copy_(0, cache_index, entries)


def mla_decode(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    context_lens: Tensor,
    scale: float,
    kv_lora_rank: int = 512,
) -> Tensor:
    block = max(_ROUNDING, _DECODE_TILE // (kv.shape[2] * kv.element_size()))
    tiles = [
        _decode_tile(q[rows], kv, block_table[rows], context_lens[rows], scale, longest, block)
        for rows, longest in _tiles(context_lens.tolist(), block)
    ]
    return _joined(tiles, dim=0)[..., :kv_lora_rank]


def mla_prefill(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    query_start: Tensor,
    context_lens: Tensor,
    w_kv_b: Tensor,
    scale: float,
) -> Tensor:
    start = query_start.tolist()
    lengths = query_start.diff()
    before = context_lens - lengths
    tiles = []
    for rows, longest in _tiles(context_lens.tolist(), _PREFILL_TILE):
        row, column = _grid(lengths[rows], start[rows.stop] - start[rows.start])
        padded = _padded(q[start[rows.start] : start[rows.stop]], row, column)
        out = _prefill_tile(padded, kv, block_table[rows], before[rows], w_kv_b, scale, longest)
        tiles.append(out.transpose(1, 2)[row, column])
    return _joined(tiles, dim=0)


def _tiles(contexts: list[int], budget: int) -> Iterator[tuple[slice, int]]:
    """Consecutive rows whose padded contexts fit the budget, at least one; and their longest."""
    rows = max(1, budget // max(contexts))
    for first in range(0, len(contexts), rows):
        tile = contexts[first : first + rows]
        yield slice(first, first + len(tile)), max(tile)


def _blocks(
    kv: Tensor, block_table: Tensor, longest: int, block: int
) -> Iterator[tuple[int, Tensor]]:
    """The rows' contexts, a block at a time: its first position, its entries [R, n, width]."""
    rows, columns = block_table.shape
    page_size = kv.shape[1]
    rounded = -(-longest // _ROUNDING) * _ROUNDING
    last = min(columns, -(-rounded // page_size))
    step = max(1, block // page_size)
    for column in range(0, last, step):
        pages = block_table[:, column : min(column + step, last)].reshape(-1)
        yield column * page_size, kv.index_select(0, pages).view(rows, -1, kv.shape[2])


def _decode_tile(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    context_lens: Tensor,
    scale: float,
    longest: int,
    block: int,
) -> Tensor:
    """q: [R, Tq, H, width] → [R, Tq, H, width], of which the caller keeps the latent part."""
    rows, query_tokens, heads, width = q.shape
    queries = q.reshape(rows, query_tokens * heads, width)
    visible = context_lens[:, None] + torch.arange(1 - query_tokens, 1, device=q.device)
    outs, log_sums = [], []
    for begin, context in _blocks(kv, block_table, longest, block):
        products = batched_product(queries, context).view(rows, query_tokens, heads, -1)
        mask = _mask(visible - begin, context.shape[1])[:, :, None]
        scores = torch.add(mask, products, alpha=scale).view(rows, query_tokens * heads, -1)
        outs.append(_weighted(scores, context))
        if longest > block:
            log_sums.append(scores.logsumexp(dim=-1))
    return _combined(outs, log_sums).view(rows, query_tokens, heads, width)


def _prefill_tile(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    before: Tensor,
    w_kv_b: Tensor,
    scale: float,
    longest: int,
) -> Tensor:
    """q: [R, H, Tq, nope + rope_dim]; before: [R], context ahead of each row → [R, H, Tq, v]."""
    rows, heads, longest_query, _ = q.shape
    queries = q.flatten(0, 1)
    furthest = int(before.max())
    visible = before[:, None] + torch.arange(1, longest_query + 1, device=q.device)
    outs, log_sums = [], []
    for begin, context in _blocks(kv, block_table, longest, _PREFILL_BLOCK):
        keys, values = _expanded(context, w_kv_b, q.shape[-1])
        step = max(16, _SCORES_AT_ONCE // (rows * heads * keys.shape[1]))
        out, log_sum = [], []
        for first in range(0, longest_query, step):
            mine = slice(first, min(first + step, longest_query))
            reach = max(1, min(keys.shape[1], furthest + mine.stop - begin))
            products = batched_product(queries[:, mine], keys[:, :reach])
            mask = _mask(visible[:, mine] - begin, reach)[:, None]
            scores = torch.add(mask, products.view(rows, heads, -1, reach), alpha=scale)
            scores = scores.flatten(0, 1)
            out.append(_weighted(scores, values[:, :reach]))
            if longest > _PREFILL_BLOCK:
                log_sum.append(scores.logsumexp(dim=-1))
        outs.append(_joined(out, dim=1))
        if log_sum:
            log_sums.append(_joined(log_sum, dim=1))
    return _combined(outs, log_sums).view(rows, heads, longest_query, -1)


def _expanded(context: Tensor, w_kv_b: Tensor, key_width: int) -> tuple[Tensor, Tensor]:
    """Every head's keys and values of [R, n] entries: [R*H, n, key_width], [R*H, n, v]."""
    rows, entries, width = context.shape
    heads, expanded_width, rank = w_kv_b.shape
    rope_dim = width - rank
    expanded = product(context.view(-1, width)[:, :rank], w_kv_b.flatten(0, 1))
    per_head = expanded.view(rows, entries, heads, expanded_width).transpose(1, 2)
    nope, values = per_head.tensor_split((key_width - rope_dim,), dim=-1)
    rope_key = context[:, None, :, rank:].expand(-1, heads, -1, -1)
    return torch.cat([nope, rope_key], dim=-1).flatten(0, 1), values.flatten(0, 1)


def _mask(visible: Tensor, entries: int) -> Tensor:
    """0 for the first `visible` entries and _MASKED for the rest: [..., entries] fp32."""
    hidden = torch.arange(entries, device=visible.device) >= visible[..., None]
    return hidden * _MASKED


def _weighted(scores: Tensor, values: Tensor) -> Tensor:
    """softmax(scores [B, M, n]) @ values [B, n, width]."""
    probabilities = torch.softmax(scores, dim=-1).to(values.dtype)
    return batched_product(probabilities, values.transpose(1, 2))


def _combined(outs: list[Tensor], log_sums: list[Tensor]) -> Tensor:
    """One softmax from those of the blocks: each weighs exp of its log-sum-exp."""
    if len(outs) == 1:
        return outs[0]
    weights = torch.softmax(torch.stack(log_sums), dim=0)[..., None]
    return (weights * torch.stack(outs)).sum(dim=0).to(outs[0].dtype)


def _joined(tensors: list[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=dim)


def _grid(lengths: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Row and column of every token in the padded layout."""
    rows = torch.arange(lengths.shape[0], device=lengths.device)
    row = torch.repeat_interleave(rows, lengths, output_size=tokens)
    first = lengths.cumsum(0) - lengths
    return row, torch.arange(tokens, device=lengths.device) - first[row]


def _padded(q: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """[T, H, width] → [R, H, longest, width], zeros after a row's last token."""
    padded = q.new_zeros(int(row[-1]) + 1, int(column.max()) + 1, *q.shape[1:])
    padded[row, column] = q
    return padded.transpose(1, 2)
