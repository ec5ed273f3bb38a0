# SPDX-License-Identifier: MIT
"""The memory behind the host tier of the KV cache: pages that the device has no room for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from dynamo_tokenspeed.model import KVPool

STAGED_BYTES = 64 << 20  # what a transfer may take of a GPU's memory for a moment

Pages = npt.NDArray[np.int32]


class HostPool:
    """`[host pages, layers, page_size, width]`: a page is one piece, copied in one go.

    On the device a page lies in as many pieces as the model has layers, so on cuda pages pass
    through a staging buffer there. All copies are in the order of the current stream, and with the
    host side pinned none of them makes the caller wait. On the CPU a copy takes the caller's thread
    alone, and not the GIL.
    """

    def __init__(self, pool: KVPool, num_pages: int) -> None:
        kv = pool.kv
        layers, _, page_size, width = kv.shape
        self._kv = kv
        self.pages = torch.empty(
            (num_pages, layers, page_size, width), dtype=kv.dtype, pin_memory=kv.is_cuda
        )
        page_bytes = layers * page_size * width * kv.itemsize
        self._staged_pages = max(1, STAGED_BYTES // page_bytes)

    @property
    def device(self) -> torch.device:
        return self._kv.device

    def store(self, device_pages: Pages, host_pages: Pages) -> None:
        """Copy pages from the device."""
        if not self._kv.is_cuda:
            device, host = _bytes(self._kv), _bytes(self.pages)
            for device_page, host_page in zip(device_pages, host_pages, strict=True):
                host[host_page] = device[:, device_page]
            return
        for device_page, host_page in self._portions(device_pages, host_pages):
            staged = self._kv[:, device_page].transpose(0, 1).contiguous()
            for index, page in enumerate(host_page):
                self.pages[page].copy_(staged[index], non_blocking=True)

    def load(self, device_pages: Pages, host_pages: Pages) -> None:
        """Copy pages to the device."""
        if not self._kv.is_cuda:
            device, host = _bytes(self._kv), _bytes(self.pages)
            for device_page, host_page in zip(device_pages, host_pages, strict=True):
                device[:, device_page] = host[host_page]
            return
        for device_page, host_page in self._portions(device_pages, host_pages):
            staged = torch.empty(
                (len(host_page), *self.pages.shape[1:]),
                dtype=self.pages.dtype,
                device=self._kv.device,
            )
            for index, page in enumerate(host_page):
                staged[index].copy_(self.pages[page], non_blocking=True)
            self._kv[:, device_page] = staged.transpose(0, 1)

    def _portions(
        self, device_pages: Pages, host_pages: Pages
    ) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """Portions that the staging buffer holds."""
        for first in range(0, len(device_pages), self._staged_pages):
            portion = slice(first, first + self._staged_pages)
            device_page = torch.from_numpy(device_pages[portion].astype(np.int64))
            yield (
                device_page.to(self._kv.device, non_blocking=True),
                host_pages[portion].tolist(),
            )


def _bytes(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    return tensor.view(torch.uint8).numpy()
