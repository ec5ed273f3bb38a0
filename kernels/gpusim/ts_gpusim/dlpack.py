# SPDX-License-Identifier: MIT
"""Tensors through DLPack (https://dmlc.github.io/dlpack): where they are, and as if on a GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from ts_gpusim.faults import LaunchError

CPU = 1  # DLDeviceType
CUDA = 2

_BYTES_BEFORE_VERSIONED = 32  # DLManagedTensorVersioned: version, context, deleter, flags
_DTYPE_NAMES = {  # DLDataTypeCode
    0: "i",
    1: "u",
    2: "f",
    4: "bf",
    5: "complex",
    6: "bool",
    10: "e4m3fn f",
    12: "e5m2 f",
    14: "e8m0fnu f",
    17: "e2m1fn f",
}


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype_code", ctypes.c_uint8),
        ("dtype_bits", ctypes.c_uint8),
        ("dtype_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # in elements; null: row-major
        ("byte_offset", ctypes.c_uint64),
    ]


@dataclass(frozen=True)
class View:
    """`address` and `size` in bytes; `size` reaches to the end of the last element."""

    address: int
    size: int
    shape: tuple[int, ...]
    dtype: str
    device_type: int


def is_tensor(value: object) -> bool:
    return hasattr(value, "__dlpack__")


def view_of(tensor: object) -> View:
    """Of anything with `__dlpack__`."""
    return view_of_capsule(export(tensor))


def view_of_capsule(capsule: object) -> View:
    tensor = _tensor_in(capsule)
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    element = (tensor.dtype_bits * tensor.dtype_lanes + 7) // 8
    if 0 in shape:
        elements = 0
    elif tensor.strides:
        strides = (tensor.strides[axis] for axis in range(tensor.ndim))
        elements = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    else:
        elements = 1
        for n in shape:
            elements *= n
    return View(
        address=(tensor.data or 0) + tensor.byte_offset,
        size=elements * element,
        shape=shape,
        dtype=f"{_DTYPE_NAMES.get(tensor.dtype_code, 'float')}{tensor.dtype_bits}",
        device_type=tensor.device_type,
    )


def export(tensor: Any) -> object:
    """Its capsule, without a stream and, for torch, without the tape of autograd."""
    if getattr(tensor, "requires_grad", False):
        tensor = tensor.detach()
    return tensor.__dlpack__()


class OnDevice:
    """A host tensor that says it is on CUDA device 0: no copy, for host code that insists."""

    def __init__(self, tensor: object) -> None:
        self.tensor = tensor

    def __dlpack_device__(self) -> tuple[int, int]:
        return (CUDA, 0)

    def __dlpack__(self, **_options: object) -> object:
        capsule = export(self.tensor)
        tensor = _tensor_in(capsule)
        tensor.device_type, tensor.device_id = CUDA, 0
        return capsule


def require_host(tensor: Any, name: str) -> None:
    """Raise LaunchError where a kernel could not use the tensor."""
    device = getattr(tensor, "device", None)
    kind = getattr(device, "type", None)  # torch; numpy says "cpu", jax has a Device
    if kind is None and hasattr(tensor, "__dlpack_device__"):
        kind = {CPU: "cpu"}.get(int(tensor.__dlpack_device__()[0]), "another device")
    if kind not in (None, "cpu"):
        raise LaunchError(
            f"{name} is on {device if kind != 'another device' else kind}, but the software GPU "
            "works on host memory: pass a CPU tensor"
        )
    try:
        view = view_of(tensor)
    except BufferError as reason:
        raise LaunchError(
            f"{name} cannot be given to a kernel: {str(reason).rstrip('.')}; pass a dense tensor "
            "that may be written"
        ) from None
    if view.size < 0:
        raise LaunchError(
            f"{name} is traversed backwards (a negative stride), which no tensor on a GPU is: pass "
            "a copy"
        )


_GET_NAME = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
    ("PyCapsule_GetName", ctypes.pythonapi)
)
_GET_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _tensor_in(capsule: object) -> _DLTensor:
    """A consumed capsule (`used_...`) is read too: its tensor lives as long as its user."""
    name = _GET_NAME(capsule)
    address = _GET_POINTER(capsule, name)
    if name in (b"dltensor", b"used_dltensor"):
        return _DLTensor.from_address(address)
    if name in (b"dltensor_versioned", b"used_dltensor_versioned"):
        return _DLTensor.from_address(address + _BYTES_BEFORE_VERSIONED)
    raise ValueError(f"a DLPack capsule named {name!r} holds no tensor")
