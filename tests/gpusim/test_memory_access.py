# SPDX-License-Identifier: MIT
"""ld, st, atom, red in every state space (PTX ISA 9.7.9.8-11, 9.7.13.5-6), and what they must not
do."""

from __future__ import annotations

import numpy as np
import pytest
from gpusim_kernels import compute, execute, floats, integers, launch, same
from ts_gpusim.faults import Fault

TYPES = {
    **{f"{s}{b}": f"{'i' if s == 's' else 'u'}{b // 8}" for s in "us" for b in (8, 16, 32, 64)},
    "b8": "u1", "b16": "u2", "b32": "u4", "b64": "u8", "f32": "f4", "f64": "f8",
}  # fmt: skip


def thread_copy(load: str, store: str, size: int, registers: str, before: str = "") -> str:
    """A kernel whose threads load at `%from` and store at `%to`, `size` bytes apart."""
    return f"""
    .visible .entry k(.param .u64 source, .param .u64 target)
    {{
        .reg .b32 %t; .reg .b64 %from, %to; {registers}
        {before}
        ld.param.u64 %from, [source];
        ld.param.u64 %to, [target];
        mov.u32 %t, %tid.x;
        mad.wide.u32 %from, %t, {size}, %from;
        mad.wide.u32 %to, %t, {size}, %to;
        {load}
        {store}
        ret;
    }}"""


@pytest.mark.parametrize("type_", TYPES)
def test_numbers_are_extended_to_the_register_and_cut_to_memory(type_):
    dtype = np.dtype(TYPES[type_])
    source = integers(f"u{dtype.itemsize}", 1, 32)
    wide = "i8" if type_[0] == "s" else "u8"
    signed = source.view(f"{wide[0]}{dtype.itemsize}")
    out = np.zeros(32, wide)
    launch(
        thread_copy(
            f"mad.wide.u32 %from, %t, {dtype.itemsize}, %base; ld.global.{type_} %r, [%from];",
            "st.global.u64 [%to], %r;",
            8,
            ".reg .b64 %r, %base;",
            "ld.param.u64 %base, [source];",
        ),
        source,
        out,
    )
    assert same(out, signed.astype(wide))
    back = np.zeros_like(source)
    launch(
        thread_copy(
            "ld.global.u64 %r, [%from];",
            f"ld.param.u64 %to, [target]; mad.wide.u32 %to, %t, {dtype.itemsize}, %to; "
            f"st.global.{type_} [%to], %r;",
            8,
            ".reg .b64 %r;",
        ),
        out,
        back,
    )
    assert same(back, source)


VECTORS = [(2, 8), (4, 8), (2, 16), (4, 16), (2, 32), (4, 32), (8, 32), (2, 64), (4, 64)]


@pytest.mark.parametrize(("vector", "bits"), VECTORS)
def test_vectors_are_loaded_and_stored_in_order(vector, bits):
    dtype = f"u{bits // 8}"
    storage = np.zeros(32 * vector + 64, dtype)
    start = -storage.ctypes.data % (vector * bits // 8) // storage.itemsize
    source = storage[start : start + 32 * vector]
    source[:] = integers(dtype, 1, 32 * vector)
    target_storage = np.zeros_like(storage)
    start = -target_storage.ctypes.data % (vector * bits // 8) // storage.itemsize
    target = target_storage[start : start + 32 * vector]
    names = [f"%r{i}" for i in range(vector)]
    launch(
        thread_copy(
            f"ld.global.v{vector}.b{bits} {{{', '.join(names)}}}, [%from];",
            f"st.global.v{vector}.b{bits} [%to], {{{', '.join(reversed(names))}}};",
            vector * bits // 8,
            f".reg .b{max(bits, 16)} %r<{vector}>;",
        ),
        source,
        target,
    )
    assert same(target.reshape(-1, vector), source.reshape(-1, vector)[:, ::-1].copy())


def test_a_vector_element_may_go_to_the_sink():
    a = integers("u8", 1, 64)
    out = np.zeros(64, "u8")
    registers, load = ".reg .b32 %r;", "ld.global.v2.u32 {_, %r}, [%from];"
    launch(thread_copy(load, "st.global.u32 [%to], %r;", 8, registers), a, out, threads=64)
    assert same(out, a >> np.uint64(32))


def test_caching_hints_and_memory_order_change_no_value():
    a, b = integers("u4", 1, 32), np.zeros(32, "u4")
    load = """createpolicy.fractional.L2::evict_first.b64 %p, 1.0;
        ld.global.nc.L1::no_allocate.L2::cache_hint.u32 %x, [%from], %p;
        ld.volatile.global.u32 %y, [%from]; ld.acquire.gpu.global.u32 %z, [%from];
        ld.relaxed.sys.u32 %w, [%from]; and.b32 %x, %x, %y; and.b32 %z, %z, %w;
        and.b32 %x, %x, %z; fence.acq_rel.gpu; prefetch.global.L2 [%from];"""
    store = "st.release.gpu.global.u32 [%to], %x;"
    launch(thread_copy(load, store, 4, ".reg .b32 %x, %y, %z, %w; .reg .b64 %p;"), a, b)
    assert same(b, a)


SHARED = """
    .visible .entry k(.param .u64 source, .param .u64 target)
    {
        .shared .align 16 .b8 buffer[256];
        .reg .b32 %t, %at, %r; .reg .b64 %from, %to, %generic;
        ld.param.u64 %from, [source];
        ld.param.u64 %to, [target];
        mov.u32 %t, %tid.x;
        mad.wide.u32 %from, %t, 4, %from;
        mad.wide.u32 %to, %t, 4, %to;
        ld.global.u32 %r, [%from];
        mov.u32 %at, buffer;
        mad.lo.u32 %at, %t, 4, %at;
        BODY
        st.global.u32 [%to], %r;
        ret;
    }"""


@pytest.mark.parametrize(
    "body",
    [
        "st.shared.u32 [%at+128], %r; mov.u32 %r, 0; ld.shared.u32 %r, [%at+128];",
        """st.shared.u32 [%at], %r; mov.u32 %r, 0; cvta.shared.u64 %generic, buffer;
           mad.wide.u32 %generic, %t, 4, %generic; ld.u32 %r, [%generic];""",
        """cvta.shared.u64 %generic, buffer; mad.wide.u32 %generic, %t, 4, %generic;
           st.u32 [%generic], %r; mov.u32 %r, 0; ld.shared.u32 %r, [%at];""",
        """cvta.shared.u64 %generic, buffer; cvta.to.shared.u64 %generic, %generic;
           mad.wide.u32 %generic, %t, 4, %generic; st.shared.u32 [%generic], %r;
           ld.shared::cta.u32 %r, [%at];""",
        """st.shared.u32 [%at], %r; xor.b32 %t, %t, 1; bar.sync 0; mov.u32 %at, buffer;
           mad.lo.u32 %at, %t, 4, %at; ld.shared.u32 %r, [%at]; xor.b32 %t, %t, 1;
           shfl.sync.bfly.b32 %r, %r, 1, 31, -1;""",
    ],
)
def test_shared_memory_by_its_own_and_by_generic_addresses(body):
    a, b = integers("u4", 1, 32), np.zeros(32, "u4")
    launch(SHARED.replace("BODY", body), a, b)
    assert same(b, a)


def test_local_memory_is_each_threads_own():
    a, b = integers("u4", 1, 64), np.zeros(64, "u4")
    before = ".local .align 8 .b8 mine[32]; .reg .b64 %mine; mov.u64 %mine, mine;"
    load = """ld.global.u32 %r, [%from]; st.local.u32 [%mine+12], %r; st.local.u32 [mine], 7;
        cvta.local.u64 %mine, %mine; mov.u32 %r, 0; ld.u32 %r, [%mine+12];"""
    ptx = thread_copy(load, "st.global.u32 [%to], %r;", 4, ".reg .b32 %r;", before)
    launch(ptx, a, b, threads=64)
    assert same(b, a)


def test_parameters_of_every_size():
    ptx = """
    .visible .entry k(.param .u8 a, .param .s16 b, .param .f32 c, .param .u64 out,
                      .param .align 8 .b8 struct[24])
    {
        .reg .b32 %a, %b, %c; .reg .b64 %x, %y, %out;
        ld.param.u8 %a, [a]; ld.param.s16 %b, [b]; ld.param.b32 %c, [c];
        ld.param.u64 %x, [struct+8]; ld.param.u64 %y, [struct+16]; ld.param.u64 %out, [out];
        st.global.u32 [%out], %a; st.global.u32 [%out+4], %b; st.global.b32 [%out+8], %c;
        st.global.u64 [%out+16], %x; st.global.u64 [%out+24], %y;
        ret;
    }"""
    out = np.zeros(4, "u8")
    block = np.array([1, 2**63 + 5, 9], "u8").tobytes()
    launch(ptx, 200, -2, 1.5, out, block, threads=1)
    words = out.view("u4")
    assert words[:3].tolist() == [200, 2**32 - 2, int(np.float32(1.5).view("u4"))]
    assert out[2:].tolist() == [2**63 + 5, 9]


VARIABLES = """
    .const .align 4 .u32 table[4] = {10, 20, 30, 40};
    .global .align 8 .b8 counter[8] = {5};
    .global .align 4 .f32 zero;
    .visible .entry k(.param .u64 out)
    {
        .reg .b32 %t, %r; .reg .b64 %at, %out;
        ld.param.u64 %out, [out];
        mov.u32 %t, %tid.x;
        mov.u64 %at, table;
        mad.wide.u32 %at, %t, 4, %at;
        ld.const.u32 %r, [%at];
        mad.wide.u32 %out, %t, 4, %out;
        st.global.u32 [%out], %r;
        atom.global.add.u32 %r, [counter], 1; bar.sync 0;
        ld.const.u32 %r, [table+8];
        st.global.u32 [%out+16], %r;
        ld.global.u32 %r, [counter];
        st.global.u32 [%out+32], %r;
        ld.global.u32 %r, [zero];
        st.global.u32 [%out+48], %r;
        ret;
    }"""


def test_variables_of_a_module_begin_with_their_values_and_keep_what_is_written():
    out = np.ones((4, 4), "u4")
    launch(VARIABLES, out, threads=4)
    assert out.tolist() == [[10, 20, 30, 40], [30] * 4, [9] * 4, [0] * 4]
    launch(VARIABLES, out, threads=4)
    assert out[2].tolist() == [13] * 4


# Atomic operations: every thread on one element, so their order shows in what they return.


def atomics(instruction: str, memory: np.ndarray, b: np.ndarray, space: str = "global"):
    """What the threads' operations return, in their order, and leave. `b`: an operand of each."""
    bits = 8 * memory.itemsize
    type_ = f"b{bits}"
    out = np.zeros_like(b)
    into = f"st.shared.{type_} [buffer], %before;" if space == "shared" else ""
    back = f"ld.shared.{type_} %r, [buffer]; st.global.{type_} [%memory], %r;"
    ptx = f"""
    .visible .entry k(.param .u64 memory, .param .u64 b, .param .u64 out)
    {{
        .shared .align 16 .b8 buffer[16];
        .reg .{type_} %b, %r, %before; .reg .b32 %t, %sh; .reg .b64 %memory, %pb, %out;
        ld.param.u64 %memory, [memory]; ld.param.u64 %pb, [b]; ld.param.u64 %out, [out];
        mov.u32 %t, %tid.x; mov.u32 %sh, buffer;
        mad.wide.u32 %pb, %t, {memory.itemsize}, %pb;
        mad.wide.u32 %out, %t, {memory.itemsize}, %out;
        ld.global.{type_} %b, [%pb];
        ld.global.{type_} %before, [%memory];
        {into}
        bar.sync 0;
        {instruction.replace("[m]", "[%sh]" if space == "shared" else "[%memory]")}
        st.global.{type_} [%out], %r;
        bar.sync 0;
        {back if space == "shared" else ""}
        ret;
    }}"""
    launch(ptx, memory, b, out, threads=b.size)
    return out


def wrap(value: int, dtype: np.dtype) -> int:
    bits = 8 * dtype.itemsize
    value %= 1 << bits
    return value - (1 << bits) if dtype.kind == "i" and value >> (bits - 1) else value


RULES = {
    "add": lambda m, b: m + b,
    "min": min,
    "max": max,
    "and": lambda m, b: m & b,
    "or": lambda m, b: m | b,
    "xor": lambda m, b: m ^ b,
    "exch": lambda m, b: b,
    "inc": lambda m, b: 0 if m >= b else m + 1,
    "dec": lambda m, b: b if m == 0 or m > b else m - 1,
    "cas": lambda m, b: 7 if m == b else m,
}
ATOMS = [
    *((f"{op}.{type_}", TYPES[type_]) for op in ("add", "min", "max")
      for type_ in ("u32", "s32", "u64", "s64") if f"{op}.{type_}" != "add.s64"),
    *((f"{op}.b{bits}", f"u{bits // 8}") for op in ("and", "or", "xor", "exch", "cas")
      for bits in (32, 64)),
    ("cas.b16", "u2"), ("inc.u32", "u4"), ("dec.u32", "u4"),
]  # fmt: skip


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(("name", "dtype"), ATOMS)
def test_atomic_operations_on_integers(name, dtype, space):
    dtype = np.dtype(dtype)
    b = integers(dtype, 1, 32)
    if name[:3] in ("cas", "inc", "dec"):
        b = np.random.default_rng(2).integers(0, 9, 32).astype(dtype)
    memory = np.full(1, 5, dtype)
    third = ", 7" if name.startswith("cas") else ""
    out = atomics(f"atom.{space}.{name} %r, [m], %b{third};", memory, b, space)
    value = 5
    rule = RULES[name.split(".")[0]]
    for operand, before in zip(b.tolist(), out.tolist(), strict=True):
        assert before == value
        value = wrap(rule(value, operand), dtype)
    assert memory[0] == value


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize("type_", ["f32", "f64"])
def test_atomic_sums_of_floats(type_, space):
    dtype = np.dtype(TYPES[type_])
    b = np.random.default_rng(1).standard_normal(32).astype(dtype)
    memory = np.full(1, 0.25, dtype)
    out = atomics(f"atom.{space}.add.{type_} %r, [m], %b;", memory, b, space)
    sums = np.add.accumulate(np.concatenate([[dtype.type(0.25)], b]))
    assert same(out, sums[:-1].copy())
    assert memory[0] == sums[-1]


def test_warps_count_in_shared_memory_without_a_race():
    ptx = """
    .visible .entry k(.param .u64 out)
    {
        .shared .align 4 .b8 total[4];
        .reg .b32 %t, %r; .reg .b64 %out; .reg .pred %first;
        ld.param.u64 %out, [out]; mov.u32 %t, %tid.x; setp.eq.u32 %first, %t, 0;
        @%first st.shared.u32 [total], 0;
        bar.sync 0;
        red.shared.add.u32 [total], %t;
        bar.sync 0;
        ld.shared.u32 %r, [total];
        @%first st.global.u32 [%out], %r;
        ret;
    }"""
    out = np.zeros(1, "u4")
    launch(ptx, out, threads=128)
    assert out[0] == 127 * 64


def test_only_sums_in_global_memory_flush_subnormal_numbers():
    b = np.full(2, 1e-40, "f4")
    for space, expected in (("global", 0.0), ("shared", 2 * np.float32(1e-40))):
        memory = np.zeros(1, "f4")
        atomics(f"atom.{space}.add.f32 %r, [m], %b;", memory, b, space)
        assert memory[0] == np.float32(expected)


@pytest.mark.parametrize("space", ["global", "shared"])
def test_atomic_sums_of_halves(space):
    b = np.random.default_rng(1).standard_normal((32, 2)).astype("f2")
    memory = np.array([[0.5, -1]], "f2")
    pair = memory.view("u4")[:, 0]
    atomics(f"atom.{space}.add.noftz.f16x2 %r, [m], %b;", pair, b.view("u4")[:, 0].copy(), space)
    assert same(memory[0], np.add.accumulate(np.concatenate([[[0.5, -1]], b]), dtype="f2")[-1])
    single = np.array([0.5], "f2")
    atomics(f"atom.{space}.add.noftz.f16 %r, [m], %b;", single.view("u2"),
            b[:, 0].copy().view("u2"), space)  # fmt: skip
    assert same(single, memory[0, :1].copy())


def test_atomic_sums_of_bf16():
    ones = np.full(32, 0x3F803F80, "u4")  # 1.0, 1.0
    memory = np.array([0x3F804000], "u4")  # 2.0, 1.0
    atomics("atom.global.add.noftz.bf16x2 %r, [m], %b;", memory, ones)
    assert memory.view("u2").tolist() == [0x4208, 0x4204]  # 34.0, 33.0


def test_reductions_return_nothing_and_take_vectors():
    memory = np.zeros(16, "f4")
    aligned = memory[-memory.ctypes.data % 16 // 4 :][:8]
    ptx = """
    .visible .entry k(.param .u64 memory)
    {
        .reg .b64 %m, %policy; .reg .b32 %one, %t; .reg .f32 %f;
        ld.param.u64 %m, [memory]; mov.f32 %f, 0f3F800000; mov.b32 %one, 1;
        createpolicy.fractional.L2::evict_last.b64 %policy;
        red.global.add.v4.f32 [%m], {%f, %f, 2.0, %f};
        red.relaxed.gpu.global.add.f32 [%m+16], %f;
        red.global.add.L2::cache_hint.u32 [%m+20], %one, %policy;
        red.global.add.noftz.v2.f16x2 [%m+24], {0x3C003C00, 0x3C003C00};
        ret;
    }"""
    launch(ptx, aligned)
    assert aligned[:5].tolist() == [32, 32, 64, 32, 32]
    assert aligned.view("u4")[5] == 32
    assert aligned[6:].view("f2").tolist() == [32] * 4


def test_a_vector_of_atomics_returns_what_was_there():
    memory = np.arange(4, dtype="f4")
    out = np.zeros(4, "f4")
    ptx = """
    .visible .entry k(.param .u64 memory, .param .u64 out)
    {
        .reg .b64 %m, %o; .reg .f32 %a, %b;
        ld.param.u64 %m, [memory]; ld.param.u64 %o, [out];
        atom.global.add.v2.f32 {%a, %b}, [%m], {0f3F800000, 0f40000000};
        st.global.v2.f32 [%o], {%a, %b};
        ret;
    }"""
    launch(ptx, memory, out, threads=1)
    assert out.tolist() == [0, 1, 0, 0]
    assert memory.tolist() == [1, 3, 2, 3]


# What kernels must not do.

ACCESS = """
    .visible .entry k(.param .u64 source)
    {
        .shared .align 16 .b8 buffer[64];
        .reg .b32 %r, %t, %at; .reg .b64 %from, %generic;
        ld.param.u64 %from, [source];
        mov.u32 %t, %tid.x;
        mov.u32 %at, buffer;
        mad.wide.u32 %from, %t, 4, %from;
        BODY
        ret;
    }"""


@pytest.mark.parametrize(
    ("body", "kind", "place"),
    [
        ("ld.global.u32 %r, [%from+4];", "out-of-bounds", "4 bytes past the end of argument 0"),
        ("st.global.u32 [%from+-4], %t;", "out-of-bounds", "4 bytes before argument 0"),
        ("ld.global.u32 %r, [%from+2];", "misaligned", "not aligned to 4"),
        ("red.global.add.u32 [%from+4], 1;", "out-of-bounds", "argument 0"),
        ("st.shared.u32 [%at+64], %t;", "out-of-bounds", "outside the CTA's"),
        ("st.shared.u32 [%at+-4], %t;", "out-of-bounds", "outside the CTA's"),
        ("st.shared.v2.u32 [%at+4], {%t, %t};", "misaligned", "not aligned to 8"),
        ("ld.shared.u32 %r, [%at+16];", "uninitialised", "never written"),
        ("cvta.shared.u64 %generic, buffer; ld.global.u32 %r, [%generic];", "out-of-bounds",
         "belong to no tensor"),
    ],
)  # fmt: skip
def test_a_wrong_access_is_a_fault_that_says_where(body, kind, place):
    with pytest.raises(Fault) as raised:
        launch(ACCESS.replace("BODY", f"\n{body}"), np.zeros(32, "u4"))
    message = str(raised.value)
    assert raised.value.kind == kind
    assert place in message
    instruction = body.split("; ")[-1].rstrip(";")
    assert instruction in message
    assert "PTX line" in message
    assert "CTA (0, 0, 0), warp 0" in message


def test_local_memory_of_a_thread_ends():
    before = ".local .align 4 .b8 mine[16]; .reg .b64 %mine; mov.u64 %mine, mine;"
    ptx = thread_copy("ld.local.u32 %r, [%mine+16];", "", 4, ".reg .b32 %r;", before)
    with pytest.raises(Fault, match="out-of-bounds"):
        launch(ptx, np.zeros(32, "u4"), np.zeros(32, "u4"))


def test_a_predicated_access_happens_only_where_the_predicate_holds():
    a = np.zeros(8, "u4")
    body = "setp.lt.u32 %p, %t, 8; @%p st.global.u32 [%from], %t;"
    launch(ACCESS.replace("BODY", ".reg .pred %p; " + body), a)
    assert a.tolist() == list(range(8))


def test_special_values_pass_through_memory_unchanged():
    a = floats("f4", 1)
    assert same(compute("mov.b32 d, a;", "f4", a=a).view("u4"), a.view("u4"))
    (d,) = execute("mov.f32 d, a;", {"d": "f4"}, a=a)
    assert same(d.view("u4"), a.view("u4"))


def test_128_bits_are_loaded_moved_and_stored_whole():
    ptx = """.visible .entry k(.param .u64 in, .param .u64 out)
    {
        .shared .align 16 .b8 tile[512]; .reg .b32 %t, %s, %a<4>; .reg .b64 %in, %out, %d<2>;
        .reg .b128 %q<3>;
        mov.u32 %t, %tid.x; mov.u32 %s, tile; mad.lo.u32 %s, %t, 16, %s;
        ld.param.u64 %in, [in]; mad.wide.u32 %in, %t, 16, %in;
        ld.param.u64 %out, [out]; mad.wide.u32 %out, %t, 16, %out;
        ld.global.b128 %q0, [%in]; mov.b128 {%d0, %d1}, %q0; mov.b128 %q1, {%d1, %d0};
        st.shared.b128 [%s], %q1; ld.shared.b128 %q2, [%s]; mov.b128 {%a0, %a1, %a2, %a3}, %q2;
        st.global.v4.b32 [%out], {%a0, %a1, %a2, %a3};
        ret;
    }"""
    in_ = integers("u8", 1, 64).reshape(32, 2)
    out = np.zeros_like(in_)
    launch(ptx, in_, out)
    assert same(out.ravel(), np.ascontiguousarray(in_[:, ::-1]).ravel())


def test_128_bits_are_exchanged_at_once():
    ptx = """.visible .entry k(.param .u64 at)
    {
        .reg .b64 %at, %d<4>; .reg .b128 %q<4>;
        ld.param.u64 %at, [at]; mov.b64 %d0, 1; mov.b64 %d1, 2; mov.b128 %q0, {%d0, %d1};
        mov.b64 %d2, 3; mov.b128 %q1, {%d2, %d2};
        atom.global.cas.b128 %q2, [%at], %q0, %q1; st.global.b128 [%at+16], %q2;
        atom.global.cas.b128 %q2, [%at], %q0, %q0; st.global.b128 [%at+32], %q2;
        atom.global.exch.b128 %q2, [%at], %q0; st.global.b128 [%at+48], %q2;
        ret;
    }"""
    room = np.zeros(18, "u8")
    at = room[room.ctypes.data % 16 // 8 :][:16]
    at[:2] = [1, 2]
    launch(ptx, at, threads=1)
    assert at[:8].tolist() == [1, 2, 1, 2, 3, 3, 3, 3]


def test_an_address_tells_its_space_and_its_cta():
    ptx = """.visible .entry k(.param .u64 out)
    {
        .shared .align 8 .b64 here; .local .align 8 .b64 own; .reg .pred %p<5>;
        .reg .b32 %r, %s, %n<6>; .reg .b64 %out, %a<4>;
        mov.u32 %r, %cluster_ctarank; ld.param.u64 %out, [out]; mad.wide.u32 %out, %r, 64, %out;
        mov.u32 %s, here; mapa.shared::cluster.u32 %s, %s, 1;
        getctarank.shared::cluster.u32 %n0, %s;
        mov.u64 %a0, here; cvta.shared.u64 %a0, %a0; mapa.u64 %a1, %a0, 1;
        getctarank.u64 %n1, %a1;
        mov.u64 %a2, own; cvta.local.u64 %a2, %a2;
        isspacep.shared::cta %p0, %a1; selp.u32 %n2, 1, 0, %p0;
        isspacep.shared::cluster %p0, %a1; isspacep.local %p1, %a1; isspacep.global %p2, %a1;
        selp.u32 %n3, 1, 0, %p0; @%p1 add.u32 %n3, %n3, 2; @%p2 add.u32 %n3, %n3, 4;
        isspacep.shared %p0, %a2; isspacep.local %p1, %a2; isspacep.global %p2, %a2;
        selp.u32 %n4, 1, 0, %p0; @%p1 add.u32 %n4, %n4, 2; @%p2 add.u32 %n4, %n4, 4;
        isspacep.shared %p0, %out; isspacep.local %p1, %out; isspacep.global %p2, %out;
        selp.u32 %n5, 1, 0, %p0; @%p1 add.u32 %n5, %n5, 2; @%p2 add.u32 %n5, %n5, 4;
        st.global.v4.u32 [%out], {%n0, %n1, %n2, %n3}; st.global.v2.u32 [%out+16], {%n4, %n5};
        ret;
    }"""
    out = np.zeros((2, 16), "u4")
    launch(ptx, out, grid=(2, 1, 1), cluster=(2, 1, 1), threads=1)
    assert out[0, :6].tolist() == [1, 1, 0, 1, 2, 4]
    assert out[1, :6].tolist() == [1, 1, 1, 1, 2, 4]
