# SPDX-License-Identifier: MIT
"""Which bytes of the host a launch on the software GPU may touch."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ts_gpusim.memory import MemoryMap


def test_an_allocation_reaches_from_the_first_element_to_the_last():
    whole = torch.zeros(10, 16, dtype=torch.bfloat16)
    memory = MemoryMap()
    memory.add(whole[2:5, 4:8], "part")
    (part,) = memory
    assert part.begin == whole[2, 4].data_ptr()
    assert part.end == whole[4, 7].data_ptr() + 2
    assert str(part) == "part [3, 4] bf16"
    assert memory.find(part.begin) is memory.find(part.end - 1) is part
    assert memory.find(part.begin - 1) is memory.find(part.end) is None
    assert memory.nearest(part.end + 100) is part


def test_reading_outside_of_every_tensor_names_the_closest():
    tensor = torch.arange(4, dtype=torch.int32)
    memory = MemoryMap()
    memory.add(tensor, "lengths")
    assert memory.read(tensor.data_ptr() + 4, 8) == struct.pack("<2i", 1, 2)
    with pytest.raises(IndexError, match=r"8 bytes at .* the closest is lengths \[4\] i32"):
        memory.read(tensor.data_ptr() + 12, 8)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6))
def test_ranges_hold_exactly_the_bytes_that_some_allocation_holds(slices):
    whole = torch.zeros(64, dtype=torch.uint8)
    memory = MemoryMap()
    for index, (begin, end) in enumerate(slices):
        memory.add(whole[begin:end], str(index))
    ranges = memory.ranges()
    for address in range(whole.data_ptr(), whole.data_ptr() + 64):
        held = any(begin <= address < end for begin, end in ranges)
        assert held == (memory.find(address) is not None)
    assert all(end < begin for (_, end), (begin, _) in pairwise(ranges))
