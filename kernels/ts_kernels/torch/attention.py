# SPDX-License-Identifier: MIT
"""Multi-head latent attention over a paged cache, in tiles that fit the CPU's caches.

A tile is as many rows as fit a budget, padded to its longest, so a row has a tile of its own only
when it is worth one. A context beyond the budget is cut into blocks whose results are combined by
their log-sum-exp, as in FlashDecoding (Dao et al., 2023), which bounds the memory of a long one.

PyTorch's scaled_dot_product_attention is not used: it wants keys and values of one width, and on a
CPU it takes 1.3 to 2.3 times as long for prompts of 512 and 2,048 tokens
(benchmarks/bench_torch_backend.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ts_kernels.torch.dense import batched_product, product
from ts_kernels.torch.norm import rms_norm
from ts_kernels.torch.rope import rope_interleaved

_LATENT_TILE = 2048  # tokens of context gathered at once, 2.3 MB in bf16
_PREFILL_TILE = 1024  # tokens of context in a tile of several rows
_PREFILL_BLOCK = 4096  # tokens of context expanded at once
_SCORES_AT_ONCE = 2**20  # elements, 4 MB in fp32
_ROUNDING = 64  # contexts are padded to a multiple of it: oneDNN compiles for every new size
_MASKED = -1e30  # finite, so that a block without a visible entry gets weight 0, not NaN


def mla_cache_write(
    kv: Tensor,
    latent: Tensor,
    rope_key: Tensor,
    norm_weight: Tensor,
    cos_sin: Tensor,
    positions: Tensor,
    cache_index: Tensor,
    eps: float,
) -> None:
    latent = rms_norm(latent, norm_weight, eps)
    key = rope_interleaved(rope_key[:, None], positions, cos_sin)[:, 0]
    entries = torch.cat([latent, key], dim=-1)
    kv.view(-1, kv.shape[-1]).index_copy_(0, cache_index, entries)


def mla_decode(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    slots: Tensor,
    context_lens: Tensor,
    scale: float,
    kv_lora_rank: int = 512,
) -> Tensor:
    visible = context_lens[:, None] + torch.arange(1 - q.shape[1], 1, device=q.device)
    tiles = []
    for rows, longest in _tiles(context_lens.tolist(), _LATENT_TILE):
        pages = _pages(block_table, slots[rows], context_lens[rows], longest, kv.shape[1])
        tiles.append(_over_latents(q[rows], kv, pages, visible[rows], context_lens[rows], scale))
    return _joined(tiles, dim=0)[..., :kv_lora_rank]


def mla_prefill(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    slots: Tensor,
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
        queries = _padded(q[start[rows.start] : start[rows.stop]], row, column)
        visible = before[rows, None] + torch.arange(1, queries.shape[1] + 1, device=q.device)
        pages = _pages(block_table, slots[rows], context_lens[rows], longest, kv.shape[1])
        out = _expanded(queries, kv, pages, visible, context_lens[rows], w_kv_b, scale)
        tiles.append(out[row, column])
    return _joined(tiles, dim=0)


def _tiles(contexts: list[int], budget: int) -> Iterator[tuple[slice, int]]:
    """Consecutive rows whose padded contexts fit the budget, at least one; and their longest."""
    rows = max(1, budget // max(contexts))
    for first in range(0, len(contexts), rows):
        tile = contexts[first : first + rows]
        yield slice(first, first + len(tile)), max(tile)


def _pages(
    block_table: Tensor, slots: Tensor, context_lens: Tensor, longest: int, page_size: int
) -> Tensor:
    """The rows' pages, [R, columns], as far as `longest` tokens reach, rounded up; behind a row's
    own last page stands page 0."""
    rounded = -(-longest // _ROUNDING) * _ROUNDING
    columns = min(block_table.shape[1], -(-rounded // page_size))
    pages = block_table[:, :columns].index_select(0, slots)
    column = torch.arange(columns, device=pages.device)
    return pages.masked_fill_(column * page_size >= context_lens[:, None], 0)


def _spans(kv: Tensor, pages: Tensor, block: int) -> list[tuple[int, int]]:
    """The columns of `pages`, cut into blocks of so many tokens."""
    last, step = pages.shape[1], max(1, block // kv.shape[1])
    return [(first, min(first + step, last)) for first in range(0, last, step)]


def _gathered(kv: Tensor, pages: Tensor, span: tuple[int, int], context_lens: Tensor) -> Tensor:
    """The rows' cache entries in these columns: [R, n, width].

    Behind a row's context they are zeros: what others have left there may be NaN, which a weight of
    0 does not take out of a sum.
    """
    flat = pages[:, span[0] : span[1]].reshape(-1)
    entries = kv.index_select(0, flat).view(pages.shape[0], -1, kv.shape[2])
    position = torch.arange(entries.shape[1], device=kv.device) + span[0] * kv.shape[1]
    # By index: there are few, and a masked fill looks at every entry.
    row, column = (position >= context_lens[:, None]).nonzero(as_tuple=True)
    entries[row, column] = 0
    return entries


def _over_latents(
    q: Tensor, kv: Tensor, pages: Tensor, visible: Tensor, context_lens: Tensor, scale: float
) -> Tensor:
    """q: [R, Tq, H, width]; visible: [R, Tq] entries that each query sees → like q.

    The values are whole entries; the caller keeps the latent part.
    """
    rows, query_tokens, heads, width = q.shape
    queries = q.reshape(rows, query_tokens * heads, width)
    outs, log_sums = [], []
    spans = _spans(kv, pages, _LATENT_TILE)
    for span in spans:
        context = _gathered(kv, pages, span, context_lens)
        products = batched_product(queries, context).view(rows, query_tokens, heads, -1)
        hidden = _hidden(visible - span[0] * kv.shape[1], context.shape[1])[:, :, None]
        scores = _scores(products, scale, hidden).view(rows, query_tokens * heads, -1)
        # One query sees all that there is; of several, the first must not meet a later one's NaN.
        outs.append(_weighted(scores, context if query_tokens == 1 else _finite(context)))
        if len(spans) > 1:
            log_sums.append(scores.logsumexp(dim=-1))
    return _combined(outs, log_sums).view(rows, query_tokens, heads, width)


def _expanded(
    q: Tensor,
    kv: Tensor,
    pages: Tensor,
    visible: Tensor,
    context_lens: Tensor,
    w_kv_b: Tensor,
    scale: float,
) -> Tensor:
    """q: [R, Tq, H, nope + rope_dim] → [R, Tq, H, v], by way of each head's keys and values."""
    rows, query_tokens, heads, key_width = q.shape
    queries = q.transpose(1, 2).flatten(0, 1)
    seen = visible.max(dim=0).values.tolist()
    outs, log_sums = [], []
    spans = _spans(kv, pages, _PREFILL_BLOCK)
    for span in spans:
        begin = span[0] * kv.shape[1]
        context = _gathered(kv, pages, span, context_lens)
        keys, values = _keys_and_values(context, w_kv_b, key_width)
        values = _finite(values)
        step = max(16, _SCORES_AT_ONCE // (rows * heads * keys.shape[1]))
        out, log_sum = [], []
        for first in range(0, query_tokens, step):
            mine = slice(first, min(first + step, query_tokens))
            reach = max(1, min(keys.shape[1], seen[mine.stop - 1] - begin))
            products = batched_product(queries[:, mine], keys[:, :reach])
            hidden = _hidden(visible[:, mine] - begin, reach)[:, None]
            scores = _scores(products.view(rows, heads, -1, reach), scale, hidden).flatten(0, 1)
            out.append(_weighted(scores, values[:, :reach]))
            if len(spans) > 1:
                log_sum.append(scores.logsumexp(dim=-1))
        outs.append(_joined(out, dim=1))
        if log_sum:
            log_sums.append(_joined(log_sum, dim=1))
    return _combined(outs, log_sums).view(rows, heads, query_tokens, -1).transpose(1, 2)


def _keys_and_values(context: Tensor, w_kv_b: Tensor, key_width: int) -> tuple[Tensor, Tensor]:
    """Every head's keys and values of [R, n] entries: [R*H, n, key_width], [R*H, n, v]."""
    rows, entries, width = context.shape
    heads, expanded_width, rank = w_kv_b.shape
    nope = key_width - (width - rank)
    expanded = product(context.view(-1, width)[:, :rank], w_kv_b.flatten(0, 1))
    per_head = expanded.view(rows, entries, heads, expanded_width).transpose(1, 2)
    rope_key = context[:, None, :, rank:].expand(-1, heads, -1, -1)
    keys = torch.cat([per_head[..., :nope], rope_key], dim=-1)
    return keys.flatten(0, 1), per_head[..., nope:].contiguous().flatten(0, 1)


def _hidden(visible: Tensor, entries: int) -> Tensor:
    """Whether an entry is behind the first `visible` ones: [..., entries] bool."""
    return torch.arange(entries, device=visible.device) >= visible[..., None]


def _scores(products: Tensor, scale: float, hidden: Tensor) -> Tensor:
    """Scaled, in fp32; what is hidden may be NaN, and must not matter."""
    return products.float().mul_(scale).masked_fill_(hidden, _MASKED)


def _finite(values: Tensor) -> Tensor:
    """Zeros for what is no number, which a weight of 0 would not take out of a sum. Whoever sees
    such an entry has a NaN from its score."""
    return values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


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
    """[T, H, width] → [R, longest, H, width], zeros after a row's last token."""
    padded = q.new_zeros(int(row[-1]) + 1, int(column.max()) + 1, *q.shape[1:])
    padded[row, column] = q
    return padded
