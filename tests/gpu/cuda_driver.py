# SPDX-License-Identifier: MIT
"""As much of CUDA's driver API as a saved launch needs, through ctypes: libcuda, nothing else.

Names, types and numbers are those of cuda.h (CUDA Driver API reference).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LIBRARY = "libcuda.so.1"

_COMPUTE_CAPABILITY_MAJOR = 75  # CUdevice_attribute
_COMPUTE_CAPABILITY_MINOR = 76
_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CUfunction_attribute
_NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 14
_CLUSTER_DIMENSION = 4  # CUlaunchAttributeID
_ERROR_LOG_BUFFER = 5  # CUjit_option
_ERROR_LOG_BUFFER_SIZE_BYTES = 6

# CUtensorMapDataType, by what a kernel's author calls it.
TENSOR_TYPES = {
    "u8": 0, "u16": 1, "u32": 2, "s32": 3, "u64": 4, "s64": 5, "f16": 6, "f32": 7, "f64": 8,
    "bf16": 9, "f32.ftz": 10, "tf32": 11, "tf32.ftz": 12,
}  # fmt: skip


class LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute: an id, then a union of 64 bytes that is aligned to 8."""

    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint * 16)]


class LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = [
        ("gridDimX", ctypes.c_uint),
        ("gridDimY", ctypes.c_uint),
        ("gridDimZ", ctypes.c_uint),
        ("blockDimX", ctypes.c_uint),
        ("blockDimY", ctypes.c_uint),
        ("blockDimZ", ctypes.c_uint),
        ("sharedMemBytes", ctypes.c_uint),
        ("hStream", ctypes.c_void_p),
        ("attrs", ctypes.POINTER(LaunchAttribute)),
        ("numAttrs", ctypes.c_uint),
    ]


def launch_config(
    grid: Sequence[int], block: Sequence[int], cluster: Sequence[int], shared_bytes: int
) -> LaunchConfig:
    config = LaunchConfig(*grid, *block, shared_bytes, None, None, 0)
    if tuple(cluster) != (1, 1, 1):
        attribute = LaunchAttribute(id=_CLUSTER_DIMENSION)
        attribute.value[:3] = cluster
        config.attrs = ctypes.pointer(attribute)
        config.numAttrs = 1
    return config


@dataclass(frozen=True)
class TensorMap:
    """What cuTensorMapEncodeTiled is given, less the address; the innermost dimension first."""

    type: str
    sizes: list[int]
    strides: list[int]  # bytes, of all dimensions but the first
    box: list[int]
    swizzle: int  # CUtensorMapSwizzle


class DriverError(RuntimeError):
    """A call of the driver that failed, with what the driver says of it."""


class Driver:
    """On one GPU, until close()."""

    def __init__(self, device: int = 0) -> None:
        """Raise OSError where there is no driver, DriverError where there is no such GPU."""
        self._library = ctypes.CDLL(LIBRARY)
        self._call("cuInit", ctypes.c_uint(0))
        handle = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(handle), ctypes.c_int(device))
        self._device = handle
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
        self._call("cuCtxSetCurrent", context)

    def close(self) -> None:
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    @property
    def name(self) -> str:
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, ctypes.c_int(256), self._device)
        return text.value.decode()

    @property
    def version(self) -> str:
        """Of CUDA that the driver supports, such as 13.0."""
        number = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    @property
    def capability(self) -> tuple[int, int]:
        return (
            self._attribute(_COMPUTE_CAPABILITY_MAJOR),
            self._attribute(_COMPUTE_CAPABILITY_MINOR),
        )

    def allocate(self, size: int) -> int:
        """Its address: a multiple of 256."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def write(self, address: int, content: np.ndarray) -> None:
        content = np.ascontiguousarray(content)
        self._call(
            "cuMemcpyHtoD_v2",
            ctypes.c_uint64(address),
            ctypes.c_void_p(content.ctypes.data),
            ctypes.c_size_t(content.nbytes),
        )

    def read(self, address: int, size: int) -> np.ndarray:
        content = np.empty(size, np.uint8)
        self._call(
            "cuMemcpyDtoH_v2",
            ctypes.c_void_p(content.ctypes.data),
            ctypes.c_uint64(address),
            ctypes.c_size_t(size),
        )
        return content

    def tensor_map(self, address: int, described: TensorMap) -> bytes:
        rank = len(described.sizes)
        storage = ctypes.create_string_buffer(128 + 64)
        aligned = -(-ctypes.addressof(storage) // 64) * 64
        self._call(
            "cuTensorMapEncodeTiled",
            ctypes.c_void_p(aligned),
            ctypes.c_int(TENSOR_TYPES[described.type]),
            ctypes.c_uint32(rank),
            ctypes.c_void_p(address),
            (ctypes.c_uint64 * rank)(*described.sizes),
            (ctypes.c_uint64 * max(rank - 1, 1))(*described.strides),
            (ctypes.c_uint32 * rank)(*described.box),
            (ctypes.c_uint32 * rank)(*[1] * rank),  # between elements
            ctypes.c_int(0),  # no interleave
            ctypes.c_int(described.swizzle),
            ctypes.c_int(0),  # no promotion in L2
            ctypes.c_int(0),  # zero outside of the tensor
        )
        return ctypes.string_at(aligned, 128)

    def run(
        self,
        ptx: str,
        kernel: str,
        config: LaunchConfig,
        parameters: Sequence[bytes],
    ) -> None:
        """The driver compiles the PTX; returns when the kernel has ended."""
        module = self._load(ptx)
        try:
            function = ctypes.c_void_p()
            self._call("cuModuleGetFunction", ctypes.byref(function), module, kernel.encode())
            for attribute, value in (
                (_MAX_DYNAMIC_SHARED_SIZE_BYTES, config.sharedMemBytes),
                (_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1),
            ):
                self._call(
                    "cuFuncSetAttribute", function, ctypes.c_int(attribute), ctypes.c_int(value)
                )
            held = [_aligned(value) for value in parameters]
            pointers = (ctypes.c_void_p * max(len(held), 1))(*[address for _, address in held])
            self._call("cuLaunchKernelEx", ctypes.byref(config), function, pointers, None)
            self._call("cuCtxSynchronize")
        finally:
            self._call("cuModuleUnload", module)

    def _load(self, ptx: str) -> ctypes.c_void_p:
        module = ctypes.c_void_p()
        log = ctypes.create_string_buffer(8192)
        options = (ctypes.c_int * 2)(_ERROR_LOG_BUFFER, _ERROR_LOG_BUFFER_SIZE_BYTES)
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), len(log))
        image = ctypes.create_string_buffer(ptx.encode())
        try:
            self._call(
                "cuModuleLoadDataEx", ctypes.byref(module), image, ctypes.c_uint(2), options, values
            )
        except DriverError as error:
            raise DriverError(f"{error}: {log.value.decode(errors='replace').strip()}") from None
        return module

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(number), self._device)
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        code = self._library[function](*arguments)
        if code == 0:
            return
        name = ctypes.c_char_p()
        self._library["cuGetErrorName"](ctypes.c_int(code), ctypes.byref(name))
        raise DriverError(f"{function} failed: {(name.value or b'?').decode()} ({code})")


def _aligned(value: bytes) -> tuple[object, int]:
    """A copy at a multiple of 128, as a tensor map needs it: what holds it, and its address."""
    storage = ctypes.create_string_buffer(len(value) + 128)
    address = -(-ctypes.addressof(storage) // 128) * 128
    ctypes.memmove(address, value, len(value))
    return storage, address
