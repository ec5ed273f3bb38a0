# SPDX-License-Identifier: MIT
"""Tensor copies of elements of 4 and 6 bits (PTX ISA 5.5.1.1.1) on the software GPU."""

from __future__ import annotations

import gpusim_narrow_types as narrow
import numpy as np
import pytest
import ts_gpusim
from gpusim_tensor_kernels import INIT, THREADS, WAIT, image_to_box, kernel, launch, own_part
from gpusim_tensor_map import swizzled, tensor_map
from ts_gpusim.faults import Fault

ROWS, KS = 20, 256  # of the tensor
BOX = (16, 128)

# Of 16 elements in shared memory: bytes that are written, and all of them.
LAYOUTS = {
    "16u4_align8": ("e2m1", 8, 8),
    "16u4_align16": ("e2m1", 8, 16),
    "16u6_align16": ("e3m2", 12, 16),
}


def load_ptx(size: int, announced: int) -> str:
    """The box comes over what `in` has."""
    out = ""
    for i in range(0, size // THREADS, 4):
        out += f"    ld.shared.u32 %value, [%box+{i}];\n    st.global.u32 [%out+{i}], %value;\n"
    copy = "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
    return kernel(
        ".param .u64 in, .param .u64 out, .param .align 64 .b8 map[128], "
        ".param .u64 tensor, .param .u32 row, .param .u32 k",
        size,
        f"""{image_to_box(size)}{own_part("out", size)}{INIT}
    mov.b64 %a, map;
    cvta.param.u64 %a, %a;
    ld.param.u32 %r0, [k];
    ld.param.u32 %r1, [row];
    @%first mbarrier.arrive.expect_tx.shared.b64 _, [%bar], {announced};
    @%first {copy} [%box], [%a, {{%r0, %r1}}], [%bar];
{WAIT}
    mad.wide.u32 %out, %tid, {size // THREADS}, %out;
    mad.lo.u32 %box, %tid, {size // THREADS}, %box;
{out}""",
    )


def load(type_: str, swizzle: int, row: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """What is in shared memory after the copy, and what should be."""
    element, used, together = LAYOUTS[type_]
    codes = narrow.random_codes((ROWS, KS), element, 1)
    tensor = narrow.packed(codes, element)
    size = BOX[0] * BOX[1] // 16 * together
    before = np.random.default_rng(2).integers(0, 256, size, np.uint8)
    content = before[np.argsort(swizzled(np.arange(size).astype(np.uint16), swizzle))]
    groups = content.reshape(*BOX[:1], -1, together)
    box = np.zeros(BOX, np.uint8)
    rows = min(BOX[0], ROWS - row)
    ks = min(BOX[1], KS - k)
    box[:rows, :ks] = codes[row : row + rows, k : k + ks]
    groups[..., :used] = narrow.packed(box.reshape(BOX[0], -1, 16), element)
    out = np.zeros(size, np.uint8)
    encoded = tensor_map(tensor, type_, BOX, swizzle)
    announced = BOX[0] * BOX[1] // 16 * used
    launch(load_ptx(size, announced), [before, out, encoded, tensor, row, k])
    return out, swizzled(groups.reshape(-1), swizzle)


@pytest.mark.parametrize(("row", "k"), [(0, 0), (2, 128), (10, 0), (4, 192)])
@pytest.mark.parametrize("swizzle", [16, 64])
@pytest.mark.parametrize("type_", LAYOUTS)
def test_a_tensor_load_pads_narrow_elements_and_leaves_the_padding(type_, swizzle, row, k):
    with ts_gpusim.device("sm_100a"):
        found, expected = load(type_, swizzle, row, k)
    np.testing.assert_array_equal(found, expected)


def test_elements_that_are_padded_together_are_not_parted():
    with ts_gpusim.device("sm_100a"), pytest.raises(Fault, match="begins at element 8 of a row"):
        load("16u4_align16", 16, 0, 8)
