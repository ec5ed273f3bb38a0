# SPDX-License-Identifier: MIT
"""Kernels that edit tensor maps, as grouped GEMMs do (PTX ISA 9.7.9.26, 9.7.13.16)."""

from __future__ import annotations

import numpy as np
import pytest
from gpusim_kernels import launch
from gpusim_tensor_map import ELEMENT_TYPES, tensor_map
from ts_gpusim.faults import Fault
from ts_gpusim.ptx.errors import PtxError


def edited(map_: bytes, edits: str, target: np.ndarray) -> bytes:
    """The map after `edits` of one in shared memory at %s, copied out by the warp."""
    ptx = f""".visible .entry k(.param .align 64 .b8 map[128], .param .u64 to, .param .u64 tensor)
    {{
        .shared .align 128 .b8 own[128]; .reg .b32 %s, %t, %v; .reg .b64 %to, %w, %tensor;
        .reg .pred %first;
        mov.u32 %t, %tid.x; setp.eq.u32 %first, %t, 0; mov.u32 %s, own;
        ld.param.u64 %to, [to]; ld.param.u64 %tensor, [tensor];
        mov.u64 %w, map; mad.wide.u32 %w, %t, 4, %w; ld.param.u32 %v, [%w];
        mad.lo.u32 %t, %t, 4, %s; st.shared.u32 [%t], %v;
        bar.warp.sync -1;
        @!%first bra SKIP;
        {edits}
        SKIP: bar.warp.sync -1;
        tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned \
[%to], [%s], 128;
        ret;
    }}"""
    room = np.zeros(256, "u1")
    out = room[-room.ctypes.data % 128 :][:128]
    launch(ptx, map_, out, target)
    return out.tobytes()


def replace(field: str, value: str, bits: int = 32, ordinal: str = "") -> str:
    return f"tensormap.replace.tile.{field}.shared::cta.b1024.b{bits} [%s], {ordinal}{value};"


def test_a_map_becomes_that_of_another_tensor():
    # Everything of it changes: address, type, sizes, strides, box, swizzle, rank.
    before = tensor_map(np.zeros((4, 32), "u4"), "u32", (2, 8))
    stored = np.zeros((5, 6, 64), "u2")
    tensor = stored[:, :, :40]
    after = tensor_map(tensor, "bf16", (3, 2, 32), swizzle=64)
    edits = replace("global_address", "%tensor", 64)
    edits += replace("rank", "2") + replace("elemtype", str(ELEMENT_TYPES["bf16"]))
    edits += replace("swizzle_mode", "2") + replace("interleave_layout", "0")
    edits += replace("fill_mode", "0") + replace("swizzle_atomicity", "0")
    for axis, (size, box) in enumerate(((40, 32), (6, 2), (5, 3))):
        edits += replace("global_dim", str(size), ordinal=f"{axis}, ")
        edits += replace("box_dim", str(box), ordinal=f"{axis}, ")
        edits += replace("element_stride", "1", ordinal=f"{axis}, ")
    for axis, stride in enumerate((128, 768)):
        edits += f"mov.u64 %w, {stride};" + replace("global_stride", "%w", 64, f"{axis}, ")
    assert edited(before, edits, stored) == after


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (replace("rank", "5"), "sets the rank less one to 5, and the limit is 4"),
        (replace("box_dim", "257", ordinal="0, "), "a box dimension to 257, and it must be 1 to"),
        (replace("element_stride", "2", ordinal="0, "), "only 1 is supported"),
        (replace("fill_mode", "1"), "the fill mode to 1, and only 0, zeros, is supported"),
        (replace("swizzle_mode", "5"), "the swizzle mode to 5"),
        (replace("interleave_layout", "1"), "the interleave layout to 1"),
        ("add.u64 %tensor, %tensor, 4;" + replace("global_address", "%tensor", 64), "of 16"),
    ],
)
def test_fields_that_no_map_can_have_are_faults(edit, sentence):
    tensor = np.zeros((4, 64), "u4")
    with pytest.raises(Fault, match=sentence) as raised:
        edited(tensor_map(tensor, "u32", (2, 8)), edit, tensor)
    assert raised.value.kind == "tensor-map"


def test_a_dimension_beyond_the_fifth_is_refused():
    tensor = np.zeros((4, 64), "u4")
    with pytest.raises(PtxError, match="dimension 5 is not 0 to 4"):
        edited(bytes(128), replace("global_dim", "8", ordinal="5, "), tensor)
