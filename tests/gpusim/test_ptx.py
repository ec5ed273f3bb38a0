# SPDX-License-Identifier: MIT
"""The PTX front end of the software GPU: what it reads, and what it refuses and how."""

from __future__ import annotations

import struct
import time
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ts_gpusim.ptx import isa
from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.parser import parse
from ts_gpusim.ptx.printer import print_instruction
from ts_gpusim.ptx.syntax import (
    Address,
    FloatImmediate,
    Guard,
    Immediate,
    Instruction,
    Kernel,
    Label,
    NegatedRegister,
    Operand,
    PredicatePair,
    Register,
    Sink,
    SourceLocation,
    SpecialRegister,
    Symbol,
    Vector,
)

HEADER = ".version 9.0\n.target sm_100a\n.address_size 64\n"
DECLARATIONS = """
.reg .pred %p<9>;
.reg .b16 %h<9>;
.reg .b32 %r<99>;
.reg .b64 %rd<99>;
.reg .f32 %f<9>;
.shared .align 16 .b8 tile[64];
"""


def kernel_of(body: str, declarations: str = DECLARATIONS) -> Kernel:
    return parse(f"{HEADER}.entry k(.param .u64 a) {{{declarations}{body}\n}}").kernels["k"]


def instruction_of(text: str) -> Instruction:
    return kernel_of(f"L0:\n{text}").instructions[0]


def operand_of(text: str) -> Operand:
    return instruction_of(f"mov.b32 %r1, {text};").operands[1]


# What is read


def test_the_header_says_version_target_and_address_size() -> None:
    module = parse(HEADER.replace("sm_100a", "sm_90a, debug"))

    assert (module.version, module.target, module.address_size) == ((9, 0), "sm_90a", 64)


def test_parameters_are_laid_out_at_their_alignment() -> None:
    text = ".param .u8 a, .param .u64 .ptr .global .align 128 b, .param .align 64 .b8 c[100]"

    kernel = parse(f"{HEADER}.visible .entry k({text}) {{ ret; }}").kernels["k"]

    assert [(p.name, p.size, p.align, p.offset) for p in kernel.parameters] == [
        ("a", 1, 1, 0),
        ("b", 8, 8, 8),
        ("c", 100, 64, 64),
    ]


def test_directives_say_how_the_kernel_is_launched() -> None:
    directives = (
        ".maxntid 256 .reqntid 128, 2, 1 .minnctapersm 1 .maxnreg 168 "
        '.reqnctapercluster 2, 1, 1 .explicitcluster .pragma "nounroll";'
    )

    kernel = parse(f"{HEADER}.entry k() {directives} {{ ret; }}").kernels["k"]

    assert kernel.max_threads == (256, 1, 1)
    assert kernel.required_threads == (128, 2, 1)
    assert kernel.required_cluster == (2, 1, 1)
    assert kernel.explicit_cluster
    assert (kernel.max_registers, kernel.min_ctas_per_sm) == (168, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x1F", 31),
        ("017", 15),
        ("0b101", 5),
        ("42U", 42),
        ("0xFFFFFFFFU", 0xFFFFFFFF),
        ("-64", -64),
        ("--64", 64),
        ("~0", -1),
        ("8+4", 12),
        ("WARP_SZ", 32),
    ],
)
def test_an_integer_constant_keeps_its_sign_and_base(text: str, value: int) -> None:
    assert operand_of(text) == Immediate(value)


@pytest.mark.parametrize(
    ("text", "bits", "width"),
    [
        ("0f3F800000", 0x3F800000, 32),
        ("0Fbf800000", 0xBF800000, 32),
        ("0d4000000000000000", 0x4000000000000000, 64),
        ("1.5", int.from_bytes(struct.pack("<d", 1.5), "little"), 64),
        ("-2e3", int.from_bytes(struct.pack("<d", -2e3), "little"), 64),
    ],
)
def test_a_float_constant_is_its_bits(text: str, bits: int, width: int) -> None:
    assert operand_of(text) == FloatImmediate(bits, width)


@pytest.mark.parametrize(
    ("text", "operand"),
    [
        ("%r7", Register("%r7", "b32")),
        ("%cluster_ctarank", SpecialRegister("%cluster_ctarank")),
        ("%tid.x", SpecialRegister("%tid.x")),
        ("tile", Symbol("tile")),
        ("tile+16", Symbol("tile", 16)),
        ("a", Symbol("a")),
        ("_", Sink()),
        ("!%p1", NegatedRegister(Register("%p1", "pred"))),
        ("%p1|_", PredicatePair(Register("%p1", "pred"), Sink())),
        ("{%r1, _, 3}", Vector((Register("%r1", "b32"), Sink(), Immediate(3)))),
        ("[%rd1]", Address(Register("%rd1", "b64"))),
        ("[%rd1+-16]", Address(Register("%rd1", "b64"), -16)),
        ("[tile + 8]", Address(Symbol("tile"), 8)),
        ("[64]", Address(Immediate(64))),
        (
            "[%rd1, {%r1, 0}]",
            Address(Register("%rd1", "b64"), 0, (Register("%r1", "b32"), Immediate(0))),
        ),
        ("L0", Label("L0")),
    ],
)
def test_an_operand_is_read_to_its_type(text: str, operand: Operand) -> None:
    assert operand_of(text) == operand


def test_a_guard_says_its_predicate_and_whether_it_is_negated() -> None:
    assert instruction_of("@!%p3 bra L0;").guard == Guard(Register("%p3", "pred"), True)


def test_an_instruction_knows_its_modifiers_line_and_text() -> None:
    kernel = kernel_of("\n\n  ld.global.v2.b32  {%r1,%r2},\n [%rd1]; ret;", DECLARATIONS.strip())

    load, ret = kernel.instructions
    assert (load.opcode, load.modifiers) == ("ld", ("global", "v2", "b32"))
    assert load.text == "ld.global.v2.b32 {%r1,%r2}, [%rd1];"
    assert (load.line, ret.line) == (11, 12)


def test_comments_and_several_statements_on_a_line_are_read() -> None:
    kernel = kernel_of("mov.b32 %r1, /* ; */ 2; L1: add.s32 %r1, %r1, 1; // bra L1;\n bra L1;")

    assert [i.opcode for i in kernel.instructions] == ["mov", "add", "bra"]
    assert kernel.labels == {"L1": 1}


def test_a_modifier_may_stand_apart() -> None:
    assert instruction_of("add .s32 %r1, %r2, %r3;").name == "add.s32"


def test_registers_of_a_vector_are_registers() -> None:
    kernel = kernel_of(
        "mov.f32 acc.y, 0f00000000; st.v4.f32 [%rd1], acc;", ".reg .v4 .f32 acc; .reg .b64 %rd<2>;"
    )

    names = tuple(Register(f"acc.{letter}", "f32") for letter in "xyzw")
    assert kernel.instructions[0].operands[0] == names[1]
    assert kernel.instructions[1].operands[1] == Vector(names)


def test_a_range_whose_prefix_ends_in_a_digit_is_told_apart() -> None:
    kernel = kernel_of("mov.b64 %r1, %r12;", ".reg .b64 %r<2>; .reg .b64 %r1<3>;")

    assert list(kernel.registers) == ["%r1", "%r12"]


def test_inner_scopes_have_registers_and_labels_of_their_own() -> None:
    wait = "{ .reg .pred p; WAIT: setp.eq.s32 p, %r1, 0; @p bra DONE; bra WAIT; DONE: }"

    kernel = kernel_of(f"WAIT: {wait}\n{wait} bra WAIT;")

    assert [r for r in kernel.registers if r.startswith("p")] == ["p$1", "p$2"]
    assert kernel.labels == {"WAIT": 0, "WAIT$1": 0, "DONE$1": 3, "WAIT$2": 3, "DONE$2": 6}
    assert [i.operands for i in kernel.instructions if i.opcode == "bra"] == [
        (Label("DONE$1"),),
        (Label("WAIT$1"),),
        (Label("DONE$2"),),
        (Label("WAIT$2"),),
        (Label("WAIT"),),
    ]


def test_an_inner_scope_sees_what_is_outside_it() -> None:
    kernel = kernel_of("{ .reg .b32 %r2; mov.b32 %r2, %r1; bra OUT; } OUT: mov.b32 %r2, 0;")

    inner, jump, outer = kernel.instructions
    assert [o.name for o in inner.operands if isinstance(o, Register)] == ["%r2$1", "%r1"]
    assert jump.operands == (Label("OUT"),)
    assert outer.operands[0] == Register("%r2", "b32")


def test_a_location_names_the_file_and_the_callers() -> None:
    body = (
        ".loc 1 10 3\n ret;\n"
        ".loc 2 5 1, function_name $L__info_string0, inlined_at 1 10 3\n L1: exit;\n"
    )
    module = parse(f'{HEADER}.entry k() {{ {body} }}\n.file 1 "a.py"\n.file 2 "b.py", 17, 4')

    ret, leave = module.kernels["k"].instructions
    caller = SourceLocation("a.py", 10, 3)
    assert ret.location == caller
    assert leave.location == SourceLocation("b.py", 5, 1, caller)
    assert module.kernels["k"].labels == {"L1": 1}


def test_variables_have_size_alignment_and_initial_bytes() -> None:
    module = parse(
        f"""{HEADER}
        .extern .shared .align 1024 .b8 dynamic[];
        .global .align 8 .u32 counter = 7;
        .const .f32 table[4] = {{1.0, 0f40000000}};
        .visible .global .s16 pairs[2][2] = {{{{1, -1}}, {{2, 3}}}};
        """
    )

    found = module.variables
    assert (found["dynamic"].size, found["dynamic"].align) == (0, 1024)
    assert (found["counter"].align, found["counter"].initial) == (8, b"\7\0\0\0")
    assert found["table"].size == 16
    assert found["table"].initial == struct.pack("<ff", 1.0, 2.0)
    assert found["pairs"].initial == struct.pack("<4h", 1, -1, 2, 3)


def test_variables_of_a_kernel_are_the_kernels() -> None:
    kernel = kernel_of("{ .local .align 4 .b8 tile[8]; st.local.b32 [tile], %r1; }")

    assert {name: v.space for name, v in kernel.variables.items()} == {
        "tile": "shared",
        "tile$1": "local",
    }
    assert kernel.instructions[0].operands[0] == Address(Symbol("tile$1"))


def test_pragmas_and_debug_sections_are_skipped() -> None:
    text = f"""{HEADER}
        .pragma "x";
        .entry k() {{ .pragma "nounroll"; ret; }}
        .section .debug_info {{ .b32 .debug_abbrev
        .b8 1, 2
        L: .b64 L }}"""

    assert list(parse(text).kernels) == ["k"]


def test_a_table_of_branch_targets_is_kept() -> None:
    kernel = kernel_of("T: .branchtargets A, B; brx.idx %r1, T; A: ret; B: exit;")

    assert kernel.branch_targets == {"T": ("A", "B")}
    isa.check(kernel.instructions[0])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("call.uni f, (%r1);", "`f` is no register, variable, label"),
        ("mov.b32 %r1, %q1;", "`%q1` is no register"),
        ("mov.b32 %r1, %r99;", "`%r99` is no register"),
        ("bra NOWHERE;", "`NOWHERE` is no register, variable, label"),
        ("L: ret; L: ret;", "stands twice"),
        (".reg .b32 %r<3>;", "declared twice"),
        (".reg .b32 x, x;", "declared twice"),
        (".reg .texref x;", "the type of a register"),
        ("mov.b32 %r1, 099;", "octal"),
        ("mov.b32 %r1, 0x10000000000000000;", "64 bits"),
        ("mov.b32 %r1, ;", "an operand"),
        ("mov.b32 %r1 }", "`,` or `;`"),
        ("add.s32 %r1, %r2, ?;", "begins no PTX token"),
        ("@%r bra L;", "the predicate of a guard"),
        (".shared .b8 x[];", "no size"),
        (".shared .align 3 .b8 x[4];", "power of two"),
        (".shared .b8 x[1] = {1, 2};", "holds 1 bytes"),
        (".shared .u32 x = tile;", "an address has 8 bytes"),
        (".tex .u32 x;", "`.tex` is no directive"),
    ],
)
def test_what_is_no_ptx_is_refused_with_its_line(body: str, words: str) -> None:
    with pytest.raises(PtxError, match=r"^PTX line \d+: ") as refused:
        kernel_of(f"\n{body}\n")

    assert words in str(refused.value)
    assert refused.value.line == 12


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (".func f() { ret; } .func f() { ret; }", "function `f` is defined twice"),
        (".func f()", "the body of the function"),
        (".func (.reg .b32 r) f() { ret; }", "where `.param` must stand"),
        (".alias f, g;", "`.alias` is not supported"),
        (".entry k() { ret; } .entry k() { ret; }", "defined twice"),
        (".entry k() { ret;", "no closing `}`"),
        (".entry k() .maxnwarps 3 { ret; }", "`.maxnwarps` is no directive"),
        (".entry k();", "the body of the kernel"),
        (".extern .global .u32 x;", "in no module"),
        ("hello", "a kernel, a variable"),
    ],
)
def test_a_module_that_cannot_be_run_is_refused(text: str, words: str) -> None:
    with pytest.raises(PtxError) as refused:
        parse(HEADER + text)

    assert words in str(refused.value)


def test_ten_thousand_lines_are_read_within_a_second() -> None:
    lines = ["fma.rn.f32x2 %rd3, %rd1, %rd2, %rd3;", "ld.shared.v2.b32 {%r1, %r2}, [tile+8];"]
    text = "\n".join(lines * 5_000)

    start = time.process_time()
    kernel = kernel_of(text)
    for instruction in kernel.instructions:
        isa.check(instruction)

    assert time.process_time() - start < 1.0


# What is allowed


@pytest.mark.parametrize(
    "text",
    [
        "add.sat.s32 %r1, %r2, 4;",
        "fma.rn.ftz.relu.f16x2 %r1, %r2, %r3, %r4;",
        "max.NaN.f32 %f1, %f2, %f3, %f4;",
        "setp.ge.and.ftz.f32 %p1|%p2, %f1, %f2, !%p3;",
        "cvt.rn.satfinite.relu.e4m3x2.f32 %h1, %f1, %f2;",
        "cvt.rn.f16x2.e5m2x2 %r1, %h1;",
        "mov.b64 %rd1, {%r1, %r2};",
        "ld.global.nc.L1::no_allocate.L2::cache_hint.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1], %rd2;",
        "ld.acquire.gpu.global.b32 %r1, [%rd1];",
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r1], %r2, [%r3];",
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r1, %r2, %r3, %r4}, [%r5];",
        "shfl.sync.bfly.b32 %r1|%p1, %r2, 16, 31, -1;",
        "elect.sync _|%p1, -1;",
        "bar.sync 1, 128;",
        "barrier.cluster.arrive.relaxed.aligned;",
        "fence.proxy.async.shared::cta;",
        "fence.mbarrier_init.release.cluster;",
        "atom.acq_rel.gpu.global.add.u32 %r1, [%rd1], 1;",
        "red.release.gpu.global.add.noftz.v4.bf16x2 [%rd1], {%r1, %r2, %r3, %r4};",
        "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p1, [%r1], %r2, 10000;",
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r1];",
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".multicast::cluster.cta_group::2.L2::cache_hint [%r1], [%rd1, {%r2, %r3, %r4}], [%r5],"
        " %h1, %rd2;",
        "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%rd1, {%r1, %r2}], [%r3];",
        "cp.async.ca.shared.global [%r1], [%rd1], 16, %r2;",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4},"
        " {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%f1, %f2, %f3, %f4};",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f1, %f2, %f3, %f4}, %rd1, %rd2,"
        " %p1, 1, 1, 0, 0;",
        "tcgen05.alloc.cta_group::2.sync.aligned.shared::cta.b32 [%r1], 512;",
        "tcgen05.mma.cta_group::1.kind::f16 [%r1], %rd1, %rd2, %r2, {%r3, %r4, %r5, %r6}, %p1;",
        "tcgen05.mma.cta_group::1.kind::mxf4nvf4.block_scale.scale_vec::4X"
        " [%r1], [%r2], %rd2, %r2, [%r3], [%r4], %p1;",
        "tcgen05.mma.ws.cta_group::1.kind::f8f6f4.collector::b0::fill [%r1], %rd1, %rd2, %r2, %p1;",
        "tcgen05.ld.sync.aligned.16x32bx2.x2.pack::16b.b32 {%r1, %r2}, [%r3], 16;",
        "tcgen05.cp.cta_group::1.32x128b.warpx4.b8x16.b6x16_p32 [%r1], %rd1;",
        "tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster.multicast::cluster.b64"
        " [%r1], %h1;",
        "tcgen05.fence::after_thread_sync;",
        "setmaxnreg.dec.sync.aligned.u32 88;",
        "griddepcontrol.wait;",
        "multimem.ld_reduce.relaxed.gpu.global.add.acc::f32.v4.bf16x2"
        " {%r1, %r2, %r3, %r4}, [%rd1];",
        "clusterlaunchcontrol.query_cancel.get_first_ctaid.v4.b32.b128 {%r1, _, _, _}, %rd1;",
    ],
)
def test_an_instruction_of_the_isa_is_allowed(text: str) -> None:
    isa.check(instruction_of(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frobnicate.b32 %r1;", "`frobnicate` is no instruction that is supported (PTX ISA 9.7"),
        ("add.foo.s32 %r1, %r2, %r3;", "`.foo` is no modifier of"),
        ("add.sat.u32 %r1, %r2, %r3;", "PTX ISA 9.7.1.1, Integer Arithmetic Instructions: add"),
        ("add.s32 %r1, %r2;", "has 2 operands that do not fit `d, a, b`"),
        ("ld.b32 %r1, %rd1;", "PTX ISA 9.7.9.8"),
        ("ld.relaxed.b32 %r1, [%rd1];", "PTX ISA 9.7.9.8"),
        ("fence.proxy.magic;", "`.magic` is no modifier of"),
        ("tcgen05.mma.cta_group::3.kind::f16 [%r1], %rd1, %rd2, %r2, %p1;", "9.7.16.10.9.1"),
        ("cp.async.bulk.tensor.6d.global.shared::cta.bulk_group [%rd1, {%r1}], [%r2];", "25.5.2"),
        ("mbarrier.arrive.shared::cluster.b64 %rd1, [%r1];", "PTX ISA 9.7.13.15.13"),
        ("shfl.bfly.b32 %r1, %r2, 1, 31;", "PTX ISA 9.7.9.6"),
    ],
)
def test_what_the_table_does_not_have_is_refused_with_line_and_section(
    text: str, words: str
) -> None:
    with pytest.raises(PtxError) as refused:
        isa.check(instruction_of(text))

    assert words in str(refused.value)
    assert str(refused.value).startswith(f"PTX line 12: `{text}`")


@pytest.mark.parametrize(
    "text",
    [
        "add.f32.rn %f1, %f2, %f3;",
        "mbarrier.try_wait.parity.cta.acquire.b64 %p1, [%rd1], 0;",
        "cp.async.bulk.tensor.2d.cta_group::2.shared::cluster.global"
        ".mbarrier::complete_tx::bytes [%r1], [%rd1, {%r1, %r2}], [%r3];",
    ],
)
def test_modifiers_without_an_order_may_change_places(text: str) -> None:
    isa.check(instruction_of(text))


@pytest.mark.parametrize(
    "text",
    [
        "cvt.rn.f32.f16x2 %f1, %r1, %r2;",
        "cp.async.bulk.shared::cta.shared::cluster.mbarrier::complete_tx::bytes"
        " [%r1], [%r2], 16, [%r3];",
        "mma.sync.aligned.m16n8k16.col.row.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};",
        "tcgen05.mma.kind::f16.cta_group::1.ws [%r1], %rd1, %rd2, %r2, %p1;",
    ],
)
def test_modifiers_whose_order_has_a_meaning_may_not(text: str) -> None:
    with pytest.raises(PtxError):
        isa.check(instruction_of(text))


def test_a_match_says_what_stands_for_each_name_of_the_form() -> None:
    found = isa.match(instruction_of("ld.global.nc.v2.f32.L2::128B {%f1, %f2}, [%rd1];"))

    assert found.section.number == "9.7.9.9"
    assert found.fields == {"vec": "v2", "type": "f32", "prefetch": "L2::128B"}


def test_every_form_says_where_the_isa_has_it() -> None:
    titles: dict[str, set[str]] = {}
    for forms in isa.FORMS.values():
        for form in forms:
            titles.setdefault(form.section.number, set()).add(form.section.title)

    assert all(number.startswith("9.7.") for number in titles)
    assert [number for number, names in titles.items() if len(names) > 1] == []


def test_every_form_allows_what_it_spells_out() -> None:
    for forms in isa.FORMS.values():
        for form in forms:
            spelled = form.syntax.replace("{", "").replace("}", "").split(".")[1:]
            modifiers = ".".join(form.choices.get(name, (name,))[0] for name in spelled)
            assert (
                form.match_modifiers(tuple(modifiers.split(".")) if modifiers else ()) is not None
            )


# Properties

_registers = st.builds(
    lambda kind, number: Register(f"%{kind[0]}{number}", kind[1]),
    st.sampled_from([("p", "pred"), ("h", "b16"), ("r", "b32"), ("rd", "b64"), ("f", "f32")]),
    st.integers(0, 8),
)
_integers = st.builds(Immediate, st.integers(-(1 << 63), (1 << 64) - 1))
_floats = st.builds(FloatImmediate, st.integers(0, (1 << 32) - 1), st.just(32)) | st.builds(
    FloatImmediate, st.integers(0, (1 << 64) - 1), st.just(64)
)
_offsets = st.integers(-(1 << 31), 1 << 31)
_symbols = st.builds(Symbol, st.sampled_from(["tile", "a"]), _offsets)
_operands = st.one_of(
    _registers,
    _integers,
    _floats,
    _symbols,
    st.just(Label("L0")),
    st.just(Sink()),
    st.sampled_from([SpecialRegister("%tid.x"), SpecialRegister("%clock64")]),
    st.builds(NegatedRegister, _registers),
    st.builds(PredicatePair, _registers | st.just(Sink()), _registers | st.just(Sink())),
    st.builds(
        lambda elements: Vector(tuple(elements)),
        st.lists(_registers | _integers | _floats | st.just(Sink()), min_size=1, max_size=8),
    ),
    st.builds(
        lambda base, offset, coordinates: Address(base, offset, tuple(coordinates)),
        _registers | st.builds(Symbol, st.sampled_from(["tile", "a"])) | _integers,
        _offsets,
        st.lists(_registers | _integers, max_size=5),
    ),
)
_words = st.from_regex(r"[a-z0-9_]{1,8}(::[a-z0-9]{1,6}){0,2}", fullmatch=True)
_instructions = st.builds(
    Instruction,
    st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True).filter(lambda name: name != "call"),
    st.lists(_words, max_size=6).map(tuple),
    st.lists(_operands, max_size=6).map(tuple),
    st.none() | st.builds(Guard, _registers, st.booleans()),
    line=st.just(12),
    location=st.none(),
    text=st.just(""),
)


@given(_instructions)
@settings(deadline=None)
def test_a_printed_instruction_parses_to_itself(instruction: Instruction) -> None:
    text = print_instruction(instruction)

    assert instruction_of(text) == replace(instruction, text=text)


_SAMPLE = f"""{HEADER}.extern .shared .align 16 .b8 dynamic[];
.visible .entry k(.param .align 8 .b8 a[16]) .reqntid 128, 1, 1 {{
.reg .pred %p<3>; .reg .b32 %r<9>; .reg .b64 %rd<9>;
.loc 1 2 3, inlined_at 1 2 3
L: {{ .reg .v2 .f32 v; mov.f32 v.x, 0f3F800000; }}
@!%p1 ld.param.v2.b32 {{%r1, _}}, [a+8]; setp.eq.s32 %p1|%p2, %r1, -1; bra.uni L; ret; }}
.file 1 "x"
"""
_PIECES = st.sampled_from(
    [*'{}[]()<>;:,.|!@+-~%$_"/*\n', "0x", ".loc 1", ".reg", "L:", ".entry", "{ ", "1", "%r1"]
)


@given(st.text(max_size=80) | st.lists(_PIECES, max_size=40).map("".join))
@settings(deadline=None)
def test_text_that_is_no_ptx_raises_nothing_but_ptx_errors(text: str) -> None:
    for start in ("", HEADER, f"{HEADER}.entry k() {{"):
        try:
            parse(start + text)
        except PtxError as refused:
            assert str(refused)


@given(st.integers(0, len(_SAMPLE)), st.integers(0, 12), st.lists(_PIECES, max_size=4))
@example(place=230, removed=0, added=["-"])  # a label within a statement
@settings(deadline=None, max_examples=300)
def test_damaged_ptx_raises_nothing_but_ptx_errors(
    place: int, removed: int, added: list[str]
) -> None:
    try:
        parse(_SAMPLE[:place] + "".join(added) + _SAMPLE[place + removed :])
    except PtxError as refused:
        assert str(refused)
