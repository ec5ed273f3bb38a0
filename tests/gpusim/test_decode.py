# SPDX-License-Identifier: MIT
"""What the software GPU does not execute is refused with line, text and section of the PTX ISA."""

from __future__ import annotations

import numpy as np
import pytest
from gpusim_kernels import compute, integers, launch
from ts_gpusim.ptx.errors import PtxError


@pytest.mark.parametrize(
    ("instruction", "sentence"),
    [
        ("frobnicate.b32 %r, %s;", "`frobnicate` is no instruction that is supported"),
        ("add.quick.f32 %r, %s, %s;", r"`.quick` is no modifier of .*PTX ISA 9\.7\.3\.3"),
        ("add.u32 %r, %s;", r"operands that do not fit `d, a, b` \(PTX ISA 9\.7\.1\.1"),
        ("brkpt;", r"`brkpt` is not executed: .*PTX ISA 9\.7\.19\.1"),
        ("isspacep.const p, %d;", r"\.const is not executed yet \(PTX ISA 9\.7\.9\.19"),
        (
            "setmaxnreg.inc.sync.aligned.u32 100;",
            r"100 registers are no multiple of 8 .*9\.7\.19\.5",
        ),
        ("multimem.red.add.u32 [%d], %r;", r"`multimem` is not executed: .*PTX ISA 9\.7\.9\.14"),
        ("cvt.rs.f16x2.f32 %r, %s, %s, %s;", r"\.rs is not executed yet \(PTX ISA 9\.7\.9\.21"),
        ("ld.global.b128 %d, [%d];", r"a register of 64 bits is too narrow for .b128"),
        ("st.async.release.gpu.global.u32 [%d], %r;", r"asynchronous store that no .*9\.7\.9\.12"),
        ("red.async.release.gpu.global.add.u32 [%d], %r;", r"asynchronous store .*9\.7\.13\.7"),
        ("brx.idx %r, L; L: ret;", r"L is no list of \.branchtargets"),
        (
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
            " [%r], [%d], 16, [%s];",
            "the operand with the mask is missing",
        ),
        ("mov.u32 %r, %pm0;", r"special register %pm0 is not known here \(PTX ISA 9\.7\.9\.3"),
        ("add.f32 %d, %r, %s;", r"%d is \.b64, but the result is \.f32: declare another"),
        ("add.f32 %r, %s, 1;", "1 is no floating-point constant"),
        ("ld.global.v2.u32 {%r, %s, %r}, [%d];", "3 registers are given for 2 elements"),
        ("ld.global.u64 %r, [%d];", "a register of 32 bits is too narrow for .u64"),
    ],
)
def test_what_is_not_executed_is_refused(instruction, sentence):
    registers = ".reg .b32 %r, %s; .reg .b64 %d; .reg .pred p;"
    ptx = f".visible .entry k()\n{{\n{registers}\n{instruction}\nret;\n}}"
    with pytest.raises(PtxError, match=sentence) as raised:
        launch(ptx)
    assert raised.value.line == 7
    assert instruction.split(";")[0] in str(raised.value)


def test_what_goes_to_the_sink_is_dropped():
    a = integers("u4", 1, 32)
    d = compute("selp.b32 _, a, 0, p; mov.b32 _, a; add.u32 d, a, 1;", "u4", a=a, p=a > 5)
    assert (d == a + np.uint32(1)).all()
