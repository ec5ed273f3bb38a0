# SPDX-License-Identifier: MIT
"""Saves the launches that the software GPU executes, and executes saved ones again."""

from __future__ import annotations

import ctypes

import numpy as np
import ts_gpusim
from cuda_driver import LaunchConfig, TensorMap
from on_chip import tensor_map_of
from saved_launch import TENSOR_MAP_BYTES, Buffer, Parameter, Pointer, SavedLaunch, Tolerance
from ts_gpusim.modules import kernel_of

ARCH = "sm_90a"
SMS = 4  # that persistent kernels see


class Recorder:
    """In the machine's place: executes each launch, and keeps it for a folder."""

    def __init__(self, name: str, tolerance: Tolerance) -> None:
        self.saved: list[SavedLaunch] = []
        self._name = name
        self._tolerance = tolerance
        self._machine = ts_gpusim.Machine(collect=True)

    def __call__(self, launch: ts_gpusim.Launch, memory: ts_gpusim.MemoryMap) -> None:
        ranges = memory.ranges()
        before = [_bytes(*range_) for range_ in ranges]
        self._machine(launch, memory)
        named = [[a for a in memory if begin <= a.begin < end] for begin, end in ranges]
        buffers = [
            Buffer(
                name=", ".join(allocation.name for allocation in allocations),
                dtype=allocations[0].dtype if len(allocations) == 1 else "u8",
                before=content,
                after=_bytes(*range_),
            )
            for allocations, content, range_ in zip(named, before, ranges, strict=True)
        ]
        self.saved.append(
            SavedLaunch(
                name=self._name if not self.saved else f"{self._name}-{len(self.saved) + 1}",
                kernel=launch.kernel,
                ptx=launch.ptx,
                grid=launch.grid,
                block=launch.block,
                cluster=launch.cluster,
                shared_bytes=launch.shared_bytes,
                parameters=[_parameter(value, ranges) for value in launch.parameters],
                buffers=buffers,
                tolerance=self._tolerance,
            )
        )


def _bytes(begin: int, end: int) -> np.ndarray:
    return np.frombuffer(ctypes.string_at(begin, end - begin), np.uint8).copy()


def _parameter(value: bytes, ranges: list[tuple[int, int]]) -> Parameter:
    """Words of 8 bytes that are addresses of the launch's memory are taken as pointers to it."""
    pointers = []
    for offset in range(0, len(value) - 7, 8):
        address = int.from_bytes(value[offset : offset + 8], "little")
        for i, (begin, end) in enumerate(ranges):
            if begin <= address < end:
                pointers.append(Pointer(offset, i, address - begin))
    return Parameter(value, pointers, _is_tensor_map(value, pointers))


def _is_tensor_map(value: bytes, pointers: list[Pointer]) -> bool:
    return (
        len(value) == TENSOR_MAP_BYTES
        and [pointer.offset for pointer in pointers] == [0]
        and value[8] & 15 == 2
    )


class SimulatedGpu:
    """The software GPU behind the calls of a real one's driver."""

    def __init__(self) -> None:
        self._memory: dict[int, np.ndarray] = {}
        self.encoded: list[TensorMap] = []

    def allocate(self, size: int) -> int:
        storage = np.zeros(size + 256, np.uint8)
        address = -(-storage.ctypes.data // 256) * 256
        begin = address - storage.ctypes.data
        self._memory[address] = storage[begin : begin + size]
        return address

    def free(self, address: int) -> None:
        del self._memory[address]

    def write(self, address: int, content: np.ndarray) -> None:
        self._memory[address][:] = content

    def read(self, address: int, size: int) -> np.ndarray:
        return self._memory[address][:size].copy()

    def tensor_map(self, address: int, described: TensorMap) -> bytes:
        self.encoded.append(described)
        return encoded(address, described)

    def run(self, ptx: str, kernel: str, config: LaunchConfig, parameters: list[bytes]) -> None:
        grid = (config.gridDimX, config.gridDimY, config.gridDimZ)
        block = (config.blockDimX, config.blockDimY, config.blockDimZ)
        cluster = (1, 1, 1)
        for i in range(config.numAttrs):
            cluster = tuple(config.attrs[i].value[:3])
        assert len(kernel_of(ptx, kernel).parameters) == len(parameters)
        machine = ts_gpusim.Machine(collect=True)
        with ts_gpusim.device(ARCH, sms=SMS, execute=machine) as gpu:
            for address, content in self._memory.items():
                gpu.register(content, hex(address))
            ts_gpusim.launch_ptx(
                ptx, kernel, grid, block, parameters, cluster, config.sharedMemBytes
            )


def encoded(address: int, described: TensorMap) -> bytes:
    """What cuTensorMapEncodeTiled would write, but for hints."""
    types = ("u8", "u16", "u32", "s32", "u64", "s64", "f16", "f32", "f32.ftz", "f64", "bf16",
             "tf32", "tf32.ftz")  # fmt: skip
    words = np.zeros(32, np.uint32)
    words[0:2] = np.array([address], np.uint64).view(np.uint32)
    rank = len(described.sizes)
    words[2] = 2 | (rank - 1) << 4 | types.index(described.type) << 7 | described.swizzle << 13
    words[8 : 8 + rank] = np.array(described.sizes) - 1
    words[13] = described.box[0] - 1 << 24
    for i, (stride, box) in enumerate(zip(described.strides, described.box[1:], strict=True)):
        words[3 + i] = stride >> 4 & 0xFFFFFFFF
        words[7] |= (stride >> 36) << 4 * i
        words[14] |= box - 1 << 8 * i
    assert tensor_map_of(words.tobytes()) == described
    return words.tobytes()
