# SPDX-License-Identifier: MIT
"""Our MLA decode kernel compiles ahead of time, without a GPU, and nothing in it is spilled."""

from __future__ import annotations

import pytest
import ts_gpusim
from ts_kernels.cutedsl.cubin import resources
from ts_kernels.cutedsl.mla_compile import compile_decode


@pytest.mark.slow
@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize(("heads", "tokens"), [(4, 1), (8, 1), (16, 1), (16, 4), (64, 1), (128, 1)])
def test_decode_compiles_for_blackwell_without_a_spill(heads, tokens, fp8, tmp_path):
    # A process has one CUDA runtime for all that it compiles: here it is the software GPU's.
    with ts_gpusim.device("sm_100a"):
        options = f"--keep-cubin --dump-dir={tmp_path}"
        compiled = compile_decode(heads, tokens, 64, fp8, options)
    found = resources(compiled.__cubin__)
    assert len(found) == 2  # decode and merge
    for kernel, use in found.items():
        assert use.stack_bytes == 0, f"{kernel} has {use.stack_bytes} bytes of stack"
        assert use.registers <= 255


def test_a_file_that_is_no_cubin_is_refused():
    with pytest.raises(ValueError, match="begins with the ELF magic"):
        resources(b"PK\x03\x04 no cubin")
