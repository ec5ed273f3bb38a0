# SPDX-License-Identifier: MIT
"""mma.sync on the software GPU against numpy, with the ISA's fragments (9.7.14.5.1 to .13)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import ts_gpusim
from gpusim_kernels import HEADER, launch, same
from gpusim_narrow_types import FORMATS, random_codes, values
from ts_gpusim.cost_model import BLACKWELL
from ts_gpusim.counters import MmaCount
from ts_gpusim.faults import Fault
from ts_gpusim.machine import Machine
from ts_gpusim.ptx.errors import PtxError

D_TYPES = {"f64": "f8", "f32": "f4", "f16": "f2", "s32": "i4"}

# As the ISA has it for each shape: groupID, threadID_in_group and i of the element to row, column.
Fragment = Callable[[int, int, int], tuple[int, int]]
A: dict[tuple[str, int], Fragment] = {
    ("m16n8k8", 16): lambda g, t, i: (g if i < 2 else g + 8, t * 2 + (i & 1)),
    ("m16n8k16", 16): lambda g, t, i: (
        g if i < 2 or 4 <= i < 6 else g + 8,
        t * 2 + (i & 1) if i < 4 else t * 2 + (i & 1) + 8,
    ),
    ("m16n8k4", 32): lambda g, t, i: (g if i == 0 else g + 8, t),
    ("m16n8k8", 32): lambda g, t, i: (g if i in (0, 2) else g + 8, t if i in (0, 1) else t + 4),
    ("m8n8k16", 8): lambda g, t, i: (g, t * 4 + i),
    ("m16n8k16", 8): lambda g, t, i: (g if i < 4 else g + 8, t * 4 + (i & 3)),
    ("m16n8k32", 8): lambda g, t, i: (
        g if i < 4 or 8 <= i < 12 else g + 8,
        t * 4 + (i & 3) if i < 8 else t * 4 + (i & 3) + 16,
    ),
    ("m8n8k4", 64): lambda g, t, i: (g, t),
    ("m16n8k4", 64): lambda g, t, i: (g if i == 0 else g + 8, t),
    ("m16n8k8", 64): lambda g, t, i: (g if i in (0, 2) else g + 8, t if i in (0, 1) else t + 4),
    ("m16n8k16", 64): lambda g, t, i: (
        g if i % 2 == 0 else g + 8,
        i * 2 + t if i % 2 == 0 else i * 2 - 2 + t,
    ),
}
B: dict[tuple[str, int], Fragment] = {
    ("m16n8k8", 16): lambda g, t, i: (t * 2 + i, g),
    ("m16n8k16", 16): lambda g, t, i: (t * 2 + (i & 1) + (0 if i < 2 else 8), g),
    ("m16n8k4", 32): lambda g, t, i: (t, g),
    ("m16n8k8", 32): lambda g, t, i: (t if i == 0 else t + 4, g),
    ("m8n8k16", 8): lambda g, t, i: (t * 4 + i, g),
    ("m16n8k16", 8): lambda g, t, i: (t * 4 + i, g),
    ("m16n8k32", 8): lambda g, t, i: (t * 4 + (i & 3) + (0 if i < 4 else 16), g),
    ("m8n8k4", 64): lambda g, t, i: (t, g),
    ("m16n8k4", 64): lambda g, t, i: (t, g),
    ("m16n8k8", 64): lambda g, t, i: (t if i == 0 else t + 4, g),
    ("m16n8k16", 64): lambda g, t, i: (t + 4 * i, g),
}


def of_sums(g: int, t: int, i: int) -> tuple[int, int]:
    return (g if i < 2 else g + 8, t * 2 + (i & 1))


def fragments(matrix: np.ndarray, fragment: Fragment) -> np.ndarray:
    """[lane, element]: what each lane has of a matrix."""
    each = matrix.size // 32
    return np.array(
        [[matrix[fragment(lane >> 2, lane % 4, i)] for i in range(each)] for lane in range(32)]
    )


@dataclass(frozen=True)
class Factor:
    """A matrix of elements, and their values."""

    elements: np.ndarray
    values: np.ndarray


def random_factor(shape: tuple[int, int], type_: str, seed: int) -> Factor:
    """Of such values that float holds every sum of products exactly; any that f64 has."""
    random = np.random.default_rng(seed)
    if type_ in FORMATS:
        codes = random_codes(shape, type_, seed)
        return Factor(codes, values(codes, type_))
    if type_ in ("s8", "u8"):
        info = np.iinfo("i1" if type_ == "s8" else "u1")
        elements = random.integers(info.min, info.max, shape, info.dtype, endpoint=True)
        return Factor(elements, elements.astype("i8"))
    if type_ == "f64":
        numbers = random.standard_normal(shape)
        return Factor(numbers, numbers)
    numbers = random.integers(-127, 128, shape) / 32
    if type_ == "f16":
        return Factor(numbers.astype("f2"), numbers)
    bits = numbers.astype("f4").view("u4")
    return Factor(bits if type_ == "tf32" else (bits >> 16).astype("u2"), numbers)


def registers(name: str, count: int) -> str:
    return f"{{{', '.join(f'%{name}{i}' for i in range(count))}}}"


def mma_ptx(text: str, counts: dict[str, int], width: int) -> str:
    """The kernel in which each lane loads its part of a, b and c, executes `text`, stores d."""
    d_width = width if width == 64 else 32
    body = ""
    for name, count in counts.items():
        bits = d_width if name in "cd" else width
        body += f".reg .b{bits} %{name}<{count}>; ld.param.u64 %at, [{name}];\n"
        body += f"mad.wide.u32 %at, %lane, {count * bits // 8}, %at;\n"
        if name == "d":
            body += text + "\n"
        for i in range(count):
            at = f"[%at+{i * bits // 8}]"
            if name == "d":
                body += f"st.global.b{bits} {at}, %{name}{i};\n"
            else:
                body += f"ld.global.b{bits} %{name}{i}, {at};\n"
    parameters = ", ".join(f".param .u64 {name}" for name in counts)
    return f"""
    .visible .entry k({parameters})
    {{
        .reg .b32 %lane; .reg .b64 %at;
        mov.u32 %lane, %tid.x;
        {body}
        ret;
    }}"""


def multiply(
    shape: str, types: str, a: np.ndarray, b: np.ndarray, c: np.ndarray, flags: str = ""
) -> np.ndarray:
    """D, of the elements of A, B and C. `types`: of D, A, B and C."""
    width = 8 * a.itemsize
    a_part = fragments(a, A[shape, width])
    b_part = fragments(b, B[shape, width])
    c_part = fragments(c, of_sums)
    d_part = np.zeros_like(c_part)
    unit = 64 if width == 64 else 32
    parts = {"a": a_part, "b": b_part, "c": c_part, "d": d_part}
    counts = {name: 8 * part[0].nbytes // unit for name, part in parts.items()}
    operands = ", ".join(registers(name, counts[name]) for name in "dabc")
    text = f"mma.sync.aligned.{shape}.row.col.{flags}{types} {operands};"
    launch(mma_ptx(text, counts, unit), *parts.values())
    d = np.zeros_like(c)
    for lane in range(32):
        for i in range(d_part.shape[1]):
            d[of_sums(lane >> 2, lane % 4, i)] = d_part[lane, i]
    return d


def sizes(shape: str) -> tuple[int, int]:
    """M and K."""
    m, _, k = shape[1:].replace("n", " ").replace("k", " ").split()
    return int(m), int(k)


def random_sums(m: int, d_type: str) -> np.ndarray:
    random = np.random.default_rng(3)
    if d_type == "s32":
        return random.integers(-(2**31), 2**31, (m, 8)).astype("i4")
    if d_type == "f64":
        return random.standard_normal((m, 8))
    return (random.integers(-256, 256, (m, 8)) / 16).astype(D_TYPES[d_type])


FLOATS = [
    *((f"m16n8k{k}", d, "f16", "f16") for k in (8, 16) for d in ("f16", "f32")),
    *((f"m16n8k{k}", "f32", "bf16", "bf16") for k in (8, 16)),
    *((f"m16n8k{k}", "f32", "tf32", "tf32") for k in (4, 8)),
    *(
        (f"m16n8k{k}", d, a, b)
        for k in (16, 32)
        for d in ("f16", "f32")
        for a in ("e4m3", "e5m2")
        for b in ("e4m3", "e5m2")
    ),
]


@pytest.mark.parametrize(("shape", "d_type", "a_type", "b_type"), FLOATS)
def test_floats_are_multiplied_and_rounded_to_the_type_of_d(shape, d_type, a_type, b_type):
    m, k = sizes(shape)
    a, b = random_factor((m, k), a_type, 1), random_factor((k, 8), b_type, 2)
    c = random_sums(m, d_type)
    d = multiply(shape, f"{d_type}.{a_type}.{b_type}.{d_type}", a.elements, b.elements, c)
    expected = (a.values @ b.values + c).astype(D_TYPES[d_type])
    assert same(d.ravel(), expected.ravel())


@pytest.mark.parametrize("shape", ["m8n8k4", "m16n8k4", "m16n8k8", "m16n8k16"])
def test_doubles_are_multiplied(shape):
    m, k = sizes(shape)
    a, b = random_factor((m, k), "f64", 1), random_factor((k, 8), "f64", 2)
    c = random_sums(m, "f64")
    d = multiply(shape, "f64.f64.f64.f64", a.elements, b.elements, c)
    np.testing.assert_allclose(d, a.values @ b.values + c, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("shape", ["m8n8k16", "m16n8k16", "m16n8k32"])
@pytest.mark.parametrize("a_type", ["s8", "u8"])
@pytest.mark.parametrize("b_type", ["s8", "u8"])
def test_integers_are_multiplied(shape, a_type, b_type):
    m, k = sizes(shape)
    a, b = random_factor((m, k), a_type, 1), random_factor((k, 8), b_type, 2)
    c = random_sums(m, "s32")
    d = multiply(shape, f"s32.{a_type}.{b_type}.s32", a.elements, b.elements, c)
    assert same(d.ravel(), (a.values @ b.values + c).astype("i4").ravel())


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("end", [-(2**31), 2**31 - 1])
def test_a_sum_of_integers_wraps_around_unless_it_saturates(end, saturates):
    a, b = random_factor((16, 32), "s8", 1), random_factor((32, 8), "s8", 2)
    c = np.full((16, 8), end, "i4")
    flags = "satfinite." if saturates else ""
    d = multiply("m16n8k32", "s32.s8.s8.s32", a.elements, b.elements, c, flags)
    sums = a.values @ b.values + c
    expected = np.clip(sums, -(2**31), 2**31 - 1) if saturates else sums
    assert same(d.ravel(), expected.astype("i4").ravel())


def test_of_tf32_the_low_13_bits_are_not_looked_at():
    a, b = random_factor((16, 8), "tf32", 1), random_factor((8, 8), "tf32", 2)
    c = random_sums(16, "f32")
    d = multiply("m16n8k8", "f32.tf32.tf32.f32", a.elements | 0x1FFF, b.elements | 0x1FFF, c)
    assert same(d.ravel(), (a.values @ b.values + c).astype("f4").ravel())


def test_d_may_be_in_the_registers_of_c_in_another_order():
    c = random_sums(16, "f32")
    parts = [np.zeros((32, 4), "u4"), np.zeros((32, 2), "u4"), fragments(c, of_sums)]
    d = np.zeros((32, 4), "f4")
    text = f"""mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
        {{%c1, %c2, %c3, %c0}}, {registers("a", 4)}, {registers("b", 2)}, {registers("c", 4)};
        mov.b32 %d0, %c1; mov.b32 %d1, %c2; mov.b32 %d2, %c3; mov.b32 %d3, %c0;"""
    launch(mma_ptx(text, {"a": 4, "b": 2, "c": 4, "d": 4}, 32), *parts, d)
    assert same(d.ravel(), parts[2].ravel())


# One mma after another, each of which adds to the last one's D.
CHAIN = """
.visible .entry k()
{
    .reg .b32 %a; .reg .f32 %d<4>; .reg .f64 %x, %y<2>;
    mov.b32 %a, 0; mov.f64 %x, 0d0000000000000000;
    mov.f32 %d0, 0f00000000; mov.f32 %d1, 0f00000000;
    mov.f32 %d2, 0f00000000; mov.f32 %d3, 0f00000000;
    mov.f64 %y0, %x; mov.f64 %y1, %x;
    BODY
    ret;
}"""
BF16 = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%d0, %d1, %d2, %d3}, "
BF16 += "{%a, %a, %a, %a}, {%a, %a}, {%d0, %d1, %d2, %d3};"
F64 = "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%y0, %y1}, {%x}, {%x}, {%y0, %y1};"


def run(body: str, threads: int = 64, record: bool = False) -> Machine:
    machine = Machine(record=record)
    with ts_gpusim.device("sm_100a", execute=machine):
        ptx = HEADER + CHAIN.replace("BODY", body)
        ts_gpusim.launch_ptx(ptx, "k", (1, 1, 1), (threads, 1, 1), [])
    return machine


def test_an_mma_is_counted_for_each_warp():
    counters = run(BF16 + BF16 + F64).runs[0].counters
    assert counters.mma == {
        "mma.bf16": MmaCount(4, 4 * 2 * 16 * 8 * 16),
        "mma.f64": MmaCount(2, 2 * 2 * 8 * 8 * 4),
    }


def test_who_needs_the_result_waits_for_the_tensor_cores():
    recording = run(BF16 + BF16, threads=32, record=True).runs[0].recording
    assert recording is not None
    (tensor_cores,) = recording.timelines[0].engines
    first, second = tensor_cores.operations
    cycle = -(-16 * 8 // BLACKWELL.mma_results)
    assert first.free - first.begin == cycle
    assert first.end - first.free == BLACKWELL.mma_latency
    assert second.begin == first.end


def test_an_mma_that_only_some_threads_execute_is_a_fault():
    lanes = ".reg .pred %p; mov.u32 %a, %tid.x; setp.lt.u32 %p, %a, 16; @%p "
    with pytest.raises(Fault, match="mma needs all 32 threads of the warp") as raised:
        run(lanes + BF16, threads=32)
    assert raised.value.kind == "aligned"


def test_threads_that_come_one_after_another_execute_it_together():
    lanes = ".reg .pred %p; mov.u32 %a, %tid.x; setp.lt.u32 %p, %a, 16; "
    branches = "@%p bra LATER; add.u32 %a, %a, 1; LATER: "
    assert run(lanes + branches + BF16, threads=32).runs[0].counters.mma_instructions == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("m8n8k4.row.col.f32.f16.f16.f32 {d,d,d,d,d,d,d,d}, {a,a}, {a,a}, {d,d,d,d,d,d,d,d}",
         "the four products of an m8n8k4 of f16 are not executed; use m16n8k8"),
        ("m16n8k64.row.col.s32.u4.s4.s32 {a,a,a,a}, {a,a,a,a}, {a,a}, {a,a,a,a}",
         "an mma of 4-bit integers is not executed; widen them to s8 or u8"),
        ("m16n8k128.row.col.s32.b1.b1.s32.and.popc {a,a,a,a}, {a,a}, {a}, {a,a,a,a}",
         "an mma of single bits is not executed; use popc and integer arithmetic"),
        ("m16n8k32.row.col.kind::f8f6f4.f32.e2m1.e4m3.f32 {d,d,d,d}, {a,a,a,a}, {a,a}, {d,d,d,d}",
         ".kind::f8f6f4 needs sm_120a, which no device here is; use tcgen05.mma"),
        ("m16n8k32.row.col.kind::mxf8f6f4.block_scale.f32.e4m3.e4m3.f32.ue8m0 "
         "{d,d,d,d}, {a,a,a,a}, {a,a}, {d,d,d,d}, a, {0,0}, a, {0,0}",
         ".kind::mxf8f6f4 needs sm_120a, which no device here is; use tcgen05.mma"),
        ("m16n8k16.row.col.f32.f16.f16.f32 {d,d,d,d}, {a,a}, {a,a}, {d,d,d,d}",
         "2 registers are given for A, but this shape needs 4"),
    ],
)  # fmt: skip
def test_what_is_not_executed_is_refused_with_a_sentence(text, sentence):
    ptx = f".visible .entry k() {{ .reg .b32 a; .reg .f32 d; mma.sync.aligned.{text}; ret; }}"
    with pytest.raises(PtxError, match=r"PTX ISA 9\.7\.14\.5\.14") as raised:
        launch(ptx)
    assert sentence in str(raised.value)


@pytest.mark.parametrize("variant", ["sp", "sp::ordered_metadata"])
def test_a_sparse_mma_is_refused_with_a_sentence(variant):
    text = f"mma.{variant}.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32"
    operands = "{d,d,d,d}, {a,a,a,a}, {a,a,a,a}, {d,d,d,d}, a, 0x0"
    ptx = f".visible .entry k() {{ .reg .b32 a; .reg .f32 d; {text} {operands}; ret; }}"
    with pytest.raises(PtxError, match="a sparse mma is not executed") as raised:
        launch(ptx)
    assert "PTX ISA 9.7.14.6.3" in str(raised.value)
