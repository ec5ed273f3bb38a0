# SPDX-License-Identifier: MIT
"""The paged KV cache of one cache group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KVSpec:
    """What a model keeps per token: `width` elements in each of `num_layers` layers.

    MLA keeps the latent and the shared rope key, `kv_lora_rank + qk_rope_head_dim`
    (DeepSeek-V2, arXiv:2405.04434, section 2.1.3).
    """

    num_layers: int
    width: int

    def bytes_per_page(self, page_size: int, dtype: torch.dtype) -> int:
        """Bytes of one page over all layers."""
        return self.num_layers * page_size * self.width * dtype.itemsize


class KVPool:
    """`[layers, pages, page_size, width]`, allocated once.

    Zeroed: attention reads padding pages and multiplies them by a weight of zero, which a NaN
    would survive. On CPU zeroed memory costs nothing until it is written.
    """

    def __init__(
        self,
        spec: KVSpec,
        num_pages: int,
        page_size: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.spec = spec
        self.num_pages = num_pages
        self.page_size = page_size
        self.kv = torch.zeros(
            (spec.num_layers, num_pages, page_size, spec.width), dtype=dtype, device=device
        )
        # One view per layer, made once: layers[i] is [pages, page_size, width].
        self.layers: tuple[Tensor, ...] = self.kv.unbind(0)
