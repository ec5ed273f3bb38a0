# SPDX-License-Identifier: MIT
"""A block-scaled GEMM written in CuTe DSL, on the software GPU, against dequantised operands."""

from __future__ import annotations

import cutlass
import gpusim_block_scaled_gemm
import gpusim_narrow_types as narrow
import numpy as np
import pytest
import torch
import ts_gpusim
from ts_gpusim.machine import Machine


def scale_atoms(codes: np.ndarray) -> np.ndarray:
    """The order that CuTe's tile_atom_to_shape_SF gives them in memory: 512 bytes for 128 rows and
    four factors of each, in them 32 rows of 16 bytes.

    `codes`: [rows, factors].
    """
    rows, factors = codes.shape
    blocks = codes.reshape(rows // 128, 4, 32, factors // 4, 4)  # (m, m1, m0, k, k0)
    return np.ascontiguousarray(blocks.transpose(0, 3, 2, 1, 4)).reshape(-1)


FORMATS = {
    # the element, its type and that of scale factors in CuTe, elements in a block
    "mxfp8": ("e4m3", cutlass.Float8E4M3FN, cutlass.Float8E8M0FNU, 32),
    "mxfp4": ("e2m1", cutlass.Float4E2M1FN, cutlass.Float8E8M0FNU, 32),
    "nvfp4": ("e2m1", cutlass.Float4E2M1FN, cutlass.Float8E4M3FN, 16),
}


@pytest.mark.parametrize("n_tile", [128, 256])
@pytest.mark.parametrize("name", FORMATS)
def test_a_block_scaled_gemm_multiplies_dequantised_operands(name, n_tile):
    type_, dtype, scale_dtype, block = FORMATS[name]
    m, n, k = 256, 256, 512
    a, b = narrow.random_codes((m, k), type_, 1), narrow.random_codes((n, k), type_, 2)
    random = np.random.default_rng(3)
    scales = [random.integers(120, 134, (rows, k // block), np.uint8) for rows in (m, n)]
    factors = [2.0 ** (codes.astype(float) - 127) for codes in scales]
    if name == "nvfp4":
        scales = [random.integers(0x20, 0x58, (rows, k // block), np.uint8) for rows in (m, n)]
        factors = [narrow.values(codes, "e4m3") for codes in scales]
    out = torch.zeros(m, n)
    machine = Machine()
    with ts_gpusim.device("sm_100a", execute=machine):
        gemm = gpusim_block_scaled_gemm.compiled(dtype, scale_dtype, block, n_tile)
        operands = [torch.from_numpy(narrow.packed(codes, type_)) for codes in (a, b)]
        gemm(*operands, *(torch.from_numpy(scale_atoms(codes)) for codes in scales), out)
    dequantised = [
        narrow.values(codes, type_) * factor.repeat(block, axis=1)
        for codes, factor in zip((a, b), factors, strict=True)
    ]
    expected = dequantised[0] @ dequantised[1].T
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
