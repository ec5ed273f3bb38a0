# SPDX-License-Identifier: MIT
"""A launch in a folder: its PTX, shape and parameters, and its memory before and after.

`<name>.ptx`, `<name>.json` and `<name>.npz`. Needs numpy only: a machine with a GPU can read it
where neither CuTe DSL nor the software GPU is installed.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TENSOR_MAP_BYTES = 128


@dataclass(frozen=True)
class Tolerance:
    """|found - expected| may be `absolute` + `relative` |expected|; with both 0, bits are equal
    (but that one NaN is as good as another). `why`: what it allows for."""

    absolute: float = 0.0
    relative: float = 0.0
    why: str = "exact"


@dataclass(frozen=True)
class Buffer:
    name: str
    dtype: str  # as Allocation has it, such as f32, bf16, "e4m3fn f8"
    before: np.ndarray  # bytes
    after: np.ndarray

    @property
    def written(self) -> bool:
        return not np.array_equal(self.before, self.after)


@dataclass(frozen=True)
class Pointer:
    """8 bytes of a parameter, `offset` bytes in, are an address `delta` bytes in a buffer."""

    offset: int
    buffer: int
    delta: int


@dataclass(frozen=True)
class Parameter:
    """`value`: as at the recording, whose addresses are another process's."""

    value: bytes
    pointers: list[Pointer]
    is_tensor_map: bool

    def at(self, addresses: list[int]) -> bytes:
        """With the buffers at these addresses."""
        value = bytearray(self.value)
        for pointer in self.pointers:
            address = addresses[pointer.buffer] + pointer.delta
            value[pointer.offset : pointer.offset + 8] = address.to_bytes(8, "little")
        return bytes(value)


@dataclass(frozen=True)
class SavedLaunch:
    name: str
    kernel: str
    ptx: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    cluster: tuple[int, int, int]
    shared_bytes: int
    parameters: list[Parameter]
    buffers: list[Buffer]
    tolerance: Tolerance

    def save(self, folder: Path) -> None:
        (folder / f"{self.name}.ptx").write_text(self.ptx)
        arrays = {}
        for i, buffer in enumerate(self.buffers):
            arrays[f"before{i}"], arrays[f"after{i}"] = buffer.before, buffer.after
        np.savez_compressed(folder / f"{self.name}.npz", **arrays)
        described = {
            "kernel": self.kernel,
            "grid": self.grid,
            "block": self.block,
            "cluster": self.cluster,
            "shared_bytes": self.shared_bytes,
            "parameters": [
                {
                    "value": parameter.value.hex(),
                    "pointers": [dataclasses.asdict(pointer) for pointer in parameter.pointers],
                    "is_tensor_map": parameter.is_tensor_map,
                }
                for parameter in self.parameters
            ],
            "buffers": [{"name": b.name, "dtype": b.dtype} for b in self.buffers],
            "tolerance": dataclasses.asdict(self.tolerance),
        }
        (folder / f"{self.name}.json").write_text(json.dumps(described, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path, name: str) -> SavedLaunch:
        described = json.loads((folder / f"{name}.json").read_text())
        with np.load(folder / f"{name}.npz") as arrays:
            buffers = [
                Buffer(b["name"], b["dtype"], arrays[f"before{i}"], arrays[f"after{i}"])
                for i, b in enumerate(described["buffers"])
            ]
        parameters = [
            Parameter(
                bytes.fromhex(parameter["value"]),
                [Pointer(**pointer) for pointer in parameter["pointers"]],
                parameter["is_tensor_map"],
            )
            for parameter in described["parameters"]
        ]
        return cls(
            name=name,
            kernel=described["kernel"],
            ptx=(folder / f"{name}.ptx").read_text(),
            grid=tuple(described["grid"]),
            block=tuple(described["block"]),
            cluster=tuple(described["cluster"]),
            shared_bytes=described["shared_bytes"],
            parameters=parameters,
            buffers=buffers,
            tolerance=Tolerance(**described["tolerance"]),
        )


def saved_in(folder: Path) -> list[SavedLaunch]:
    return [SavedLaunch.load(folder, path.stem) for path in sorted(folder.glob("*.json"))]


# Comparison


@dataclass(frozen=True)
class Difference:
    """Of a buffer that the launch writes: between what was found and what was expected."""

    buffer: str
    elements: int
    different_bits: int  # elements
    beyond: int  # elements that the tolerance does not allow
    greatest_absolute: float
    greatest_relative: float

    def __str__(self) -> str:
        return (
            f"{self.buffer}: {self.beyond} of {self.elements} elements are beyond the tolerance "
            f"({self.different_bits} differ, by at most {self.greatest_absolute:.3g} or "
            f"{self.greatest_relative:.3g} of the value)"
        )


def differences(saved: SavedLaunch, found: list[np.ndarray]) -> list[Difference]:
    """`found`: the bytes of every buffer after the launch."""
    compared = []
    for buffer, bytes_ in zip(saved.buffers, found, strict=True):
        if buffer.written or not np.array_equal(bytes_, buffer.after):
            compared.append(_difference(buffer, bytes_, saved.tolerance))
    return compared


def _difference(buffer: Buffer, found: np.ndarray, tolerance: Tolerance) -> Difference:
    kind, size = _kind_and_bytes(buffer.dtype)
    bits = [array.view(f"u{size}") for array in (found, buffer.after)]
    ours, expected = (_numbers(array, kind) for array in bits)
    unequal = bits[0] != bits[1]
    with np.errstate(invalid="ignore", over="ignore"):
        unequal &= ~(np.isnan(ours) & np.isnan(expected))
        apart = np.where(unequal & (ours != expected), np.abs(ours - expected), 0.0)
        apart = np.where(np.isnan(apart), np.inf, apart)
        allowed = tolerance.absolute + tolerance.relative * np.abs(expected)
        close = apart <= np.nan_to_num(allowed)
        relative = apart / np.maximum(np.abs(expected), np.finfo(np.float32).tiny)
    exact = tolerance.absolute == tolerance.relative == 0
    return Difference(
        buffer=buffer.name,
        elements=len(ours),
        different_bits=int(unequal.sum()),
        beyond=int((unequal if exact else unequal & ~close).sum()),
        greatest_absolute=float(apart.max(initial=0)),
        greatest_relative=float(np.where(apart > 0, relative, 0).max(initial=0)),
    )


def _kind_and_bytes(dtype: str) -> tuple[str, int]:
    """Such as ("bf", 2); formats that numpy does not have, but bf16, are compared as bits."""
    kind = dtype.rstrip("0123456789")
    size = int(dtype[len(kind) :]) // 8
    return (kind, size) if kind in ("f", "bf", "i", "u") else ("u", size)


def _numbers(bits: np.ndarray, kind: str) -> np.ndarray:
    if kind == "bf":
        bits = bits.astype(np.uint32) << 16
        kind = "f"
    return bits.view(f"{kind}{bits.itemsize}").astype(np.float64)
