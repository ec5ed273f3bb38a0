# SPDX-License-Identifier: MIT
"""The software GPU, for as long as a `with` block lasts.

    with ts_gpusim.device("sm_100a", sms=148) as gpu:
        kernel(q, k, v, out)                          # CuTe DSL's own host function, CPU tensors
        ts_gpusim.launch_ptx(ptx, "add", grid=(4, 1, 1), block=(128, 1, 1), arguments=[a, b, n])

Every launch is executed at once, in the order in which the host code asks for it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ts_gpusim.admission import admit
from ts_gpusim.capture.device_queries import patch_hardware_info, patch_torch
from ts_gpusim.capture.host_calls import HostCalls
from ts_gpusim.capture.patches import Patches
from ts_gpusim.capture.runtime import Runtime
from ts_gpusim.dlpack import require_host
from ts_gpusim.launch import Launch
from ts_gpusim.memory import MemoryMap
from ts_gpusim.properties import DeviceProperties, device_properties

Execute = Callable[[Launch, MemoryMap], object]  # what it returns is dropped


class Device:
    """`memory`: what launches may touch besides the tensors of their own call."""

    def __init__(self, properties: DeviceProperties, execute: Execute) -> None:
        self.properties = properties
        self.memory = MemoryMap()
        self._execute = execute

    def register(self, tensor: object, name: str) -> None:
        """For a tensor whose bare address a kernel gets (`make_ptr`, an integer argument)."""
        require_host(tensor, name)
        self.memory.add(tensor, name)

    def launch(self, launch: Launch, arguments: MemoryMap) -> None:
        """Raise LaunchError for a launch that a GPU would refuse."""
        self._execute(admit(launch, self.properties), self.memory.merge(arguments))


@contextmanager
def device(arch: str, sms: int | None = None, execute: Execute | None = None) -> Iterator[Device]:
    """CuTe DSL compiles for `arch` and runs on the software GPU inside the block.

    `sms`: what kernels read as the number of SMs; the product's own without one. `execute`: what
    runs a launch; the machine without one. Raise ValueError for an architecture that is not known,
    RuntimeError inside another device's block.
    """
    global _active
    if _active is not None:
        raise RuntimeError(
            f"a {_active.properties.name} is active: leave its `with` block before the next one"
        )
    gpu = Device(device_properties(arch, sms), execute or _machine())
    calls = HostCalls(gpu.launch)
    patches = Patches()
    with TemporaryDirectory(prefix="ts_gpusim_") as folder:
        try:
            patch_torch(patches, gpu.properties)
            if importlib.util.find_spec("nvidia_cutlass_dsl") is not None:
                from ts_gpusim.capture.cute_dsl import patch_cute_dsl

                patch_cute_dsl(patches, gpu.properties, calls, Path(folder))
                patch_hardware_info(patches, gpu.properties)
            runtime = Runtime(gpu.properties, calls.on_launch, calls.on_problem)
            _active = gpu
            try:
                yield gpu
            finally:
                _active = None
                runtime.disconnect()
        finally:
            patches.undo()


def active_device() -> Device:
    if _active is None:
        raise RuntimeError("no software GPU is active: use `with ts_gpusim.device(...):`")
    return _active


_active: Device | None = None


def _machine() -> Execute:
    from ts_gpusim.machine import execute

    machine: Execute = execute
    return machine
