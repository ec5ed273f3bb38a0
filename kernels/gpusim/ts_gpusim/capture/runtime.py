# SPDX-License-Identifier: MIT
"""The CUDA runtime of runtime/cuda_runtime.cpp, from Python's side."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ts_gpusim
from ts_gpusim import properties
from ts_gpusim.launch import Dim3, LaunchAttributes
from ts_gpusim.properties import DeviceProperties


class _Attribute(ctypes.Structure):
    _fields_ = [
        ("id", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("value", ctypes.c_ubyte * 64),
    ]


class _Config(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_size_t),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("attribute_count", ctypes.c_uint32),
    ]


_LAUNCH = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.POINTER(_Config), ctypes.POINTER(ctypes.c_void_p)
)
_PROBLEM = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


@dataclass(frozen=True)
class LaunchRequest:
    """What the runtime knows: no PTX, and so no sizes of parameters."""

    kernel: str
    grid: Dim3
    block: Dim3
    cluster: Dim3
    shared_bytes: int
    attributes: LaunchAttributes
    argument_pointers: ctypes._Pointer[ctypes.c_void_p]

    def arguments(self, sizes: list[int]) -> list[bytes]:
        return [
            ctypes.string_at(self.argument_pointers[index] or 0, size)
            for index, size in enumerate(sizes)
        ]


@cache
def library_path() -> Path:
    """In an editable install the package has two folders: sources, and what was built."""
    for folder in ts_gpusim.__path__:
        if (path := Path(folder, "cuda_runtime.so")).exists():
            return path
    raise FileNotFoundError(
        "ts_gpusim was installed without cuda_runtime.so: build it again (make install)"
    )


class Runtime:
    """Receives the launches of every host function that was linked against the library.

    Neither callback may raise: both are called from host code, which ctypes cannot unwind.
    """

    def __init__(
        self,
        device: DeviceProperties,
        on_launch: Callable[[LaunchRequest], None],
        on_problem: Callable[[str], None],
    ) -> None:
        self._library = ctypes.CDLL(str(library_path()))
        _require_no_other_runtime(self._library)
        self._launch = _LAUNCH(
            lambda kernel, config, arguments: on_launch(_request(kernel, config, arguments))
        )
        self._problem = _PROBLEM(lambda sentence: on_problem(sentence.decode()))
        for attribute, value in _device_attributes(device).items():
            self._library.ts_gpusim_set_attribute(attribute, value)
        self._library.ts_gpusim_connect(self._launch, self._problem)

    def disconnect(self) -> None:
        self._library.ts_gpusim_connect(_LAUNCH(), _PROBLEM())


def _require_no_other_runtime(library: ctypes.CDLL) -> None:
    """Host code takes a symbol from the first library of the process that has it."""
    try:
        first = ctypes.CDLL(None)._cudaLaunchKernelEx
    except AttributeError:
        return
    if _address_of(first) != _address_of(library._cudaLaunchKernelEx):
        raise RuntimeError(
            "CuTe DSL has compiled for a real GPU in this process already, and the CUDA runtime "
            "that it loaded stays in the way: enter ts_gpusim.device(...) before, or in a process "
            "of its own"
        )


def _address_of(function: object) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]


_CLUSTER_DIMENSION = 4  # cudaLaunchAttributeID
_COOPERATIVE = 2
_PROGRAMMATIC_STREAM_SERIALIZATION = 6
_PREFERRED_CLUSTER_DIMENSION = 11


def _request(
    kernel: bytes, pointer: ctypes._Pointer[_Config], arguments: ctypes._Pointer[ctypes.c_void_p]
) -> LaunchRequest:
    config = pointer.contents
    values = {
        config.attributes[index].id: bytes(config.attributes[index].value)
        for index in range(config.attribute_count)
    }
    cluster = values.pop(_CLUSTER_DIMENSION, None)
    preferred = values.pop(_PREFERRED_CLUSTER_DIMENSION, None)
    return LaunchRequest(
        kernel=kernel.decode(),
        grid=_dim3(bytes(config.grid)),
        block=_dim3(bytes(config.block)),
        cluster=_dim3(cluster) if cluster else (1, 1, 1),
        shared_bytes=config.shared_bytes,
        attributes=LaunchAttributes(
            programmatic_stream_serialization=_flag(
                values.pop(_PROGRAMMATIC_STREAM_SERIALIZATION, None)
            ),
            cooperative=_flag(values.pop(_COOPERATIVE, None)),
            preferred_cluster=_dim3(preferred) if preferred else None,
            others=values,
        ),
        argument_pointers=arguments,
    )


def _dim3(value: bytes) -> Dim3:
    x, y, z = (int.from_bytes(value[at : at + 4], "little") for at in (0, 4, 8))
    return (x, y, z)


def _flag(value: bytes | None) -> bool:
    return value is not None and any(value[:4])


def _device_attributes(device: DeviceProperties) -> dict[int, int]:
    """By the numbers of cudaDeviceAttr."""
    block, grid = properties.MAX_BLOCK, properties.MAX_GRID
    return {
        1: properties.MAX_THREADS_PER_BLOCK,
        **dict(zip((2, 3, 4), block, strict=True)),
        **dict(zip((5, 6, 7), grid, strict=True)),
        8: properties.SHARED_BYTES_PER_BLOCK,
        10: 32,  # threads of a warp
        16: device.sms,
        75: device.capability[0],
        76: device.capability[1],
        81: properties.SHARED_BYTES_PER_SM,
        95: 1,  # cooperative launch
        97: properties.SHARED_BYTES_PER_BLOCK_OPT_IN,
    }
