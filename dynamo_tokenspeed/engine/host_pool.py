# SPDX-License-Identifier: MIT
"""The memory behind the host tier of the KV cache: pages that the device has no room for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import ts_scheduler

from dynamo_tokenspeed.model import KVPool

STORE, LOAD = 0, 1  # `Plan.transfer_kind`: device to host, host to device
STAGED_BYTES = 64 << 20  # what transfers may take of the device's memory for a moment


class HostPool:
    """`[host pages, layers, page_size, width]`: a page is one piece, copied in one go.

    On the device a page lies in as many pieces as the model has layers, so pages pass through a
    staging buffer there. All copies are in the order of the device's stream, and with the host
    side pinned (on cuda) none of them makes the caller wait.
    """

    def __init__(self, pool: KVPool, num_pages: int) -> None:
        kv = pool.kv
        layers, _, page_size, width = kv.shape
        self._pool = pool
        self.pages = torch.empty(
            (num_pages, layers, page_size, width), dtype=kv.dtype, pin_memory=kv.is_cuda
        )
        page_bytes = layers * page_size * width * kv.itemsize
        self._staged_pages = max(1, STAGED_BYTES // page_bytes)

    def transfer(self, plan: ts_scheduler.Plan) -> None:
        """Start what the plan moves: first all stores, which its rows or loads may overwrite."""
        if not len(plan.transfer_id):
            return
        kind = np.repeat(plan.transfer_kind, np.diff(plan.transfer_offset))
        pages = np.stack([plan.transfer_device_page, plan.transfer_host_page]).astype(np.int64)
        for device_page, host_page in self._portions(pages[:, kind == STORE]):
            staged = self._pool.kv[:, device_page].transpose(0, 1).contiguous()
            for index, page in enumerate(host_page):
                self.pages[page].copy_(staged[index], non_blocking=True)
        for device_page, host_page in self._portions(pages[:, kind == LOAD]):
            staged = torch.empty(
                (len(host_page), *self.pages.shape[1:]),
                dtype=self.pages.dtype,
                device=self._pool.kv.device,
            )
            for index, page in enumerate(host_page):
                staged[index].copy_(self.pages[page], non_blocking=True)
            self._pool.kv[:, device_page] = staged.transpose(0, 1)

    def _portions(self, pages: npt.NDArray[np.int64]) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """`[2, n]` device and host pages, in portions that the staging buffer holds."""
        for first in range(0, pages.shape[1], self._staged_pages):
            device_page, host_page = pages[:, first : first + self._staged_pages]
            on_device = torch.from_numpy(device_page).to(self._pool.kv.device, non_blocking=True)
            yield on_device, host_page.tolist()
