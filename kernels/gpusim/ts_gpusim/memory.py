# SPDX-License-Identifier: MIT
"""The host memory that a launch may touch: the tensors that the call was given."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

from ts_gpusim.dlpack import View, view_of


@dataclass(frozen=True)
class Allocation:
    """From a tensor's first element to its last one, gaps of a strided tensor included."""

    name: str  # the parameter of the host function, or what register() was given
    begin: int
    size: int  # in bytes
    tensor: object  # keeps the memory alive
    shape: tuple[int, ...]
    dtype: str

    @property
    def end(self) -> int:
        return self.begin + self.size

    def __str__(self) -> str:
        return f"{self.name} [{', '.join(map(str, self.shape))}] {self.dtype}"


class MemoryMap:
    """Allocations may overlap: two views of one tensor are two of them."""

    def __init__(self) -> None:
        self._allocations: dict[tuple[str, int, int], Allocation] = {}

    def __iter__(self) -> Iterator[Allocation]:
        return iter(self._allocations.values())

    def __len__(self) -> int:
        return len(self._allocations)

    def add(self, tensor: object, name: str) -> None:
        """Anything with `__dlpack__` in host memory; an empty tensor is no allocation."""
        self.add_view(view_of(tensor), tensor, name)

    def add_view(self, view: View, tensor: object, name: str) -> None:
        if view.size:
            found = Allocation(name, view.address, view.size, tensor, view.shape, view.dtype)
            self._allocations[name, found.begin, found.size] = found

    def merge(self, other: MemoryMap) -> MemoryMap:
        merged = MemoryMap()
        merged._allocations = {**self._allocations, **other._allocations}
        return merged

    def find(self, address: int) -> Allocation | None:
        """The smallest allocation that has the byte at `address`."""
        holding = [found for found in self if found.begin <= address < found.end]
        return min(holding, key=lambda found: found.size, default=None)

    def nearest(self, address: int) -> Allocation | None:
        """For messages about an address outside: the allocation with the closest byte."""

        def distance(found: Allocation) -> int:
            return max(found.begin - address, address - found.end + 1, 0)

        return min(self, key=distance, default=None)

    def ranges(self) -> list[tuple[int, int]]:
        """`(begin, end)` of the bytes that a launch may touch: sorted, disjoint."""
        merged: list[tuple[int, int]] = []
        for begin, end in sorted((found.begin, found.end) for found in self):
            if merged and begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        return merged

    def read(self, address: int, size: int) -> bytes:
        """What a kernel would load; IndexError names the closest allocation."""
        if not any(begin <= address and address + size <= end for begin, end in self.ranges()):
            near = self.nearest(address)
            where = f"; the closest is {near}" if near else ""
            raise IndexError(f"{size} bytes at {address:#x} are in no tensor{where}")
        return ctypes.string_at(address, size)
