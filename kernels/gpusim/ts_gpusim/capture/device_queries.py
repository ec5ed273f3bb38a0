# SPDX-License-Identifier: MIT
"""What kernels' Python code asks about the GPU before it compiles: answered for the software GPU.

`torch.cuda.is_available()` keeps its own answer: tensors are in host memory here.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch

from ts_gpusim import properties
from ts_gpusim.capture.patches import Patches
from ts_gpusim.properties import DeviceProperties

L2_BYTES = 126 * 2**20  # of a B200; no kernel's result may depend on it


class _NullStream:
    """Launches are executed at once."""

    device = torch.device("cuda:0")
    cuda_stream = 0

    def synchronize(self) -> None:
        pass


def patch_torch(patches: Patches, device: DeviceProperties) -> None:
    described = SimpleNamespace(
        name=device.name,
        major=device.capability[0],
        minor=device.capability[1],
        multi_processor_count=device.sms,
        warp_size=32,
        max_threads_per_multi_processor=2048,
        shared_memory_per_block=properties.SHARED_BYTES_PER_BLOCK,
        shared_memory_per_block_optin=properties.SHARED_BYTES_PER_BLOCK_OPT_IN,
        shared_memory_per_multiprocessor=properties.SHARED_BYTES_PER_SM,
        L2_cache_size=L2_BYTES,
    )
    patches.set(torch.cuda, "get_device_capability", lambda _device=None: device.capability)
    patches.set(torch.cuda, "get_device_properties", lambda _device=None: described)
    patches.set(torch.cuda, "get_device_name", lambda _device=None: described.name)
    patches.set(torch.cuda, "current_device", lambda: 0)
    patches.set(torch.cuda, "current_stream", lambda _device=None: _NullStream())
    patches.set(torch.cuda, "synchronize", lambda _device=None: None)
    patches.set(torch.Tensor, "cuda", lambda tensor, *_args, **_kwargs: tensor)


def patch_hardware_info(patches: Patches, device: DeviceProperties) -> None:
    """cutlass.utils.HardwareInfo asks the driver."""
    from cutlass.utils import HardwareInfo

    def init(info: object, device_id: int = 0) -> None:
        info.device_id = device_id  # type: ignore[attr-defined]

    def max_active_clusters(_info: object, cluster_size: int, stream: object = None) -> int:
        return device.max_active_clusters(cluster_size)

    patches.set(HardwareInfo, "__init__", init)
    patches.set(HardwareInfo, "get_max_active_clusters", max_active_clusters)
    patches.set(HardwareInfo, "get_device_multiprocessor_count", lambda _info: device.sms)
    patches.set(HardwareInfo, "get_l2_cache_size_in_bytes", lambda _info: L2_BYTES)
