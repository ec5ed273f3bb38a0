# SPDX-License-Identifier: MIT
"""Where threads go and what a warp's tell each other (PTX ISA 9.7.12, 9.7.9.6, 9.7.13.2,
9.7.13.9-14, 10)."""

from __future__ import annotations

import numpy as np
import pytest
from gpusim_kernels import compute, execute, floats, integers, launch, same
from ts_gpusim.faults import Fault

LANES = np.arange(32)
TID = np.arange(64, dtype="u4")


def shuffled(mode: str, b: np.ndarray, c: int) -> tuple[np.ndarray, np.ndarray]:
    """The pseudo-code of PTX ISA 9.7.9.6: where each lane reads, and its predicate."""
    clamp, segment = c & 31, c >> 8 & 31
    most = (LANES & segment) | (clamp & ~segment)
    b = b & 31
    source = {
        "up": LANES - b, "down": LANES + b, "bfly": LANES ^ b,
        "idx": (LANES & segment) | (b & ~segment),
    }[mode]  # fmt: skip
    inside = source >= most if mode == "up" else source <= most
    return np.where(inside, source, LANES), inside


@pytest.mark.parametrize("width", [32, 16, 8, 4])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffles_within_segments(mode, width):
    c = (32 - width) << 8 | (0 if mode == "up" else 31)
    a = integers("u4", 1, 32)
    for distance in (0, 1, 3, 7, 16, 31):
        source, inside = shuffled(mode, np.full(32, distance), c)
        text = f"shfl.sync.{mode}.b32 d|p, a, {distance}, {c}, -1;"
        d, p = execute(text, {"d": "u4", "p": bool}, a=a)
        assert same(d, a[source])
        assert (p == inside).all()


def test_an_indexed_shuffle_reads_any_lane():
    a, b = integers("u4", 1, 32), integers("u4", 2, 32)
    d = compute("shfl.sync.idx.b32 d, a, b, 31, 0xffffffff;", "u4", a=a, b=b)
    assert same(d, a[b & 31])


def test_a_shuffle_that_reads_a_thread_that_is_not_there_is_a_fault():
    text = "setp.lt.u32 p, a, 16; @p shfl.sync.down.b32 d, a, 1, 31, 0xffff;"
    with pytest.raises(Fault, match="lane 15 reads lane 16") as raised:
        execute(text, {"d": "u4", "p": bool}, a=np.arange(32, dtype="u4"))
    assert raised.value.kind == "shuffle"


def test_a_thread_that_its_own_mask_does_not_name_is_a_fault():
    with pytest.raises(Fault, match="lane 1 is not in the mask 0x1") as raised:
        compute("shfl.sync.idx.b32 d, a, 0, 31, 1;", "u4", a=np.arange(32, dtype="u4"))
    assert raised.value.kind == "member-mask"


@pytest.mark.parametrize("votes", [0, 0xFFFFFFFF, 0x0000FFF0, 1])
def test_votes(votes):
    p = (votes >> LANES & 1).astype(bool)
    text = """vote.sync.all.pred all, p, -1; vote.sync.any.pred any, p, -1;
        vote.sync.uni.pred uni, p, -1; vote.sync.all.pred none, !p, -1;
        vote.sync.ballot.b32 d, p, -1;"""
    names = {"all": bool, "any": bool, "uni": bool, "none": bool, "d": "u4"}
    all_, any_, uni, none, d = execute(text, names, p=p)
    assert (all_ == p.all()).all()
    assert (any_ == p.any()).all()
    assert (uni == (p.all() or not p.any())).all()
    assert (none == (not p.any())).all()
    assert (d == votes).all()


def test_groups_of_a_warp_vote_by_themselves():
    members = np.where(LANES < 16, 0xFFFF, 0xFFFF0000).astype("u4")
    p = (LANES % 3 == 0) | (LANES > 15)
    text = """vote.sync.ballot.b32 d, p, members; vote.sync.all.pred all, p, members;
        redux.sync.add.u32 e, members, members; elect.sync f|leads, members;"""
    names = {"d": "u4", "all": bool, "e": "u4", "f": "u4", "leads": bool}
    d, all_, e, f, leads = execute(text, names, p=p, members=members)
    ballot = sum(1 << lane for lane in range(32) if p[lane])
    assert (d == (ballot & members)).all()
    assert (all_ == (LANES > 15)).all()
    assert (e == (members.astype("u8") * 16).astype("u4")).all()
    assert (f == LANES // 16 * 16).all()
    assert (leads == (LANES % 16 == 0)).all()


@pytest.mark.parametrize("bits", [32, 64])
def test_matches(bits):
    a = np.random.default_rng(1).integers(0, 4, 32).astype(f"u{bits // 8}") << (bits - 2)
    same_ = (a[:, None] == a[None, :]) @ (np.uint64(1) << LANES.astype("u8"))
    assert same(compute(f"match.any.sync.b{bits} d, a, -1;", "u4", a=a), same_.astype("u4"))
    text = f"match.all.sync.b{bits} d|p, a, -1;"
    d, p = execute(text, {"d": "u4", "p": bool}, a=a)
    assert not d.any()
    assert not p.any()
    d, p = execute(text, {"d": "u4", "p": bool}, a=np.full_like(a, 7))
    assert (d == 0xFFFFFFFF).all()
    assert p.all()


@pytest.mark.parametrize("sign", ["u", "s"])
def test_reductions_of_integers(sign):
    a = integers("u4" if sign == "u" else "i4", 1, 32)
    rules = {
        f"add.{sign}32": np.add, f"min.{sign}32": np.minimum, f"max.{sign}32": np.maximum,
        "and.b32": np.bitwise_and, "or.b32": np.bitwise_or, "xor.b32": np.bitwise_xor,
    }  # fmt: skip
    for name, rule in rules.items():
        d = compute(f"redux.sync.{name} d, a, -1;", a.dtype, a=a)
        assert same(d, np.full(32, rule.reduce(a), a.dtype)), name


def test_reductions_of_floats():
    a = np.random.default_rng(1).standard_normal(32).astype("f4")
    a[3] = np.nan
    for abs_, source in (("", a), (".abs", np.abs(a))):
        for name, rule in (("min", np.fmin), ("max", np.fmax)):
            d = compute(f"redux.sync.{name}{abs_}.f32 d, a, -1;", "f4", a=a)
            assert same(d, np.full(32, rule.reduce(source), "f4"))
            d = compute(f"redux.sync.{name}{abs_}.NaN.f32 d, a, -1;", "f4", a=a)
            assert np.isnan(d).all()


def test_threads_that_go_different_ways_meet_again():
    # Who is active: in each branch only those that took it, and all of them after it.
    text = """
        and.b32 x, a, 1; setp.eq.u32 p, x, 0;
        @p bra EVEN;
        activemask.b32 d; setp.gt.u32 p, a, 15; @p bra HIGH;
        add.u32 e, a, 100; bra JOIN;
        HIGH: add.u32 e, a, 200; bra JOIN;
        EVEN: activemask.b32 d; add.u32 e, a, 300;
        JOIN: activemask.b32 f;"""
    a = np.arange(32, dtype="u4")
    registers = {"p": "pred", "x": "b32"}
    d, e, f = execute(text, {"d": "u4", "e": "u4", "f": "u4"}, registers, a=a)
    odd = a % 2 == 1
    assert same(d, np.where(odd, 0xAAAAAAAA, 0x55555555).astype("u4"))
    assert same(e, a + np.where(odd, np.where(a > 15, 200, 100), 300).astype("u4"))
    assert (f == 0xFFFFFFFF).all()


def test_loops_run_as_often_as_each_thread_wants():
    text = """
        mov.u32 d, 0; mov.u32 i, 0;
        OUTER: setp.ge.u32 p, i, a; @p bra DONE;
        mov.u32 j, 0;
        INNER: add.u32 d, d, 1; add.u32 j, j, 1; setp.lt.u32 p, j, i; @p bra INNER;
        add.u32 i, i, 1; bra OUTER;
        DONE: activemask.b32 e;"""
    a = np.random.default_rng(1).integers(0, 12, 64).astype("u4")
    registers = {"p": "pred", "i": "b32", "j": "b32"}
    d, e = execute(text, {"d": "u4", "e": "u4"}, registers, a=a)
    assert d.tolist() == [sum(max(i, 1) for i in range(n)) for n in a.tolist()]
    assert (e == 0xFFFFFFFF).all()


def test_threads_that_exit_are_not_waited_for():
    text = """setp.lt.u32 p, a, 4; mov.u32 d, 0; @!p bra GO; exit;
        GO: setp.ge.u32 p, a, 0; vote.sync.ballot.b32 d, p, -1; bar.sync 0;"""
    (d,) = execute(text, {"d": "u4"}, {"p": "pred"}, a=TID)
    assert same(d, np.where(TID < 4, 0, np.where(TID < 32, 0xFFFFFFF0, 0xFFFFFFFF)).astype("u4"))


@pytest.mark.parametrize("guard", ["", "@p ", "@!p "])
def test_an_indexed_branch_takes_the_target_of_each_thread(guard):
    text = f"""
        setp.lt.u32 p, a, 9; and.b32 x, a, 3;
        {guard}brx.idx x, targets;
        mov.u32 d, 50; bra JOIN;
        targets: .branchtargets ZERO, ONE, TWO, ONE;
        ZERO: mov.u32 d, 10; bra JOIN;
        ONE: mov.u32 d, 11; bra JOIN;
        TWO: mov.u32 d, 12;
        JOIN:"""
    (d,) = execute(text, {"d": "u4"}, {"p": "pred", "x": "b32"}, a=TID)
    goes = {"": TID >= 0, "@p ": TID < 9, "@!p ": TID >= 9}[guard]
    expected = np.where(goes, np.array([10, 11, 12, 11])[TID & 3], 50)
    assert same(d, expected.astype("u4"))


def test_an_index_beyond_the_targets_is_a_fault():
    text = "brx.idx a, targets; targets: .branchtargets ONLY; ONLY: mov.u32 d, 1;"
    with pytest.raises(Fault, match=r"index 1 of brx\.idx is beyond its list"):
        compute(text, "u4", a=np.arange(32, dtype="u4"))


def test_predicated_instructions_leave_the_other_threads_results_alone():
    a, b = integers("u4", 1, 64), integers("u4", 2, 64)
    p = np.random.default_rng(3).random(64) < 0.5
    text = "mov.u32 d, b; @p add.u32 d, a, 1; @!p add.u32 d, d, 2;"
    assert same(compute(text, "u4", a=a, b=b, p=p), np.where(p, a + 1, b + 2))


def test_a_barrier_of_a_warp_waits_for_those_it_names():
    text = """setp.lt.u32 p, a, 16; @p bra LOW;
        mov.u32 d, 1; bar.warp.sync -1; bra JOIN;
        LOW: mov.u32 d, 2; bar.warp.sync -1;
        JOIN: add.u32 d, d, 1;"""
    (d,) = execute(text, {"d": "u4"}, {"p": "pred"}, a=np.arange(32, dtype="u4"))
    assert same(d, np.where(LANES < 16, 3, 2).astype("u4"))


def test_special_registers_say_where_a_thread_is():
    names = [
        *(f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"),
        *("%laneid", "%warpid", "%cluster_ctarank", "%cluster_nctarank"),
        *("%clusterid.x", "%nclusterid.x", "%cluster_ctaid.x", "%cluster_nctaid.x"),
        *("%lanemask_eq", "%lanemask_lt", "%lanemask_le", "%lanemask_gt", "%lanemask_ge"),
    ]
    stores = "\n".join(
        f"mov.u32 %v, {name}; st.global.u32 [%out+{4 * i}], %v;" for i, name in enumerate(names)
    )
    ptx = f"""
    .visible .entry k(.param .u64 out)
    {{
        .reg .b32 %v, %t, %c; .reg .b64 %out;
        ld.param.u64 %out, [out];
        mov.u32 %t, %tid.z; mov.u32 %c, %ntid.y; mad.lo.u32 %t, %t, %c, %tid.y;
        mov.u32 %c, %ntid.x; mad.lo.u32 %t, %t, %c, %tid.x;
        mov.u32 %v, %ctaid.y; mov.u32 %c, %nctaid.x; mad.lo.u32 %v, %v, %c, %ctaid.x;
        mad.lo.u32 %t, %v, 48, %t;
        mad.wide.u32 %out, %t, {4 * len(names)}, %out;
        {stores}
        ret;
    }}"""
    out = np.zeros((12, 48, len(names)), "u4")
    launch(ptx, out, grid=(4, 3, 1), block=(4, 6, 2), cluster=(2, 1, 1))
    cta, thread = np.meshgrid(np.arange(12), np.arange(48), indexing="ij")
    lane = thread % 32
    eq = np.uint64(1) << lane.astype("u8")
    expected = [
        *(thread % 4, thread // 4 % 6, thread // 24, 4, 6, 2),
        *(cta % 4, cta // 4, 0, 4, 3, 1),
        *(lane, thread // 32, cta % 2, 2),
        *(cta % 4 // 2, 2, cta % 2, 2),
        *(eq, eq - 1, 2 * eq - 1, 0xFFFFFFFF & ~(2 * eq - 1), 0xFFFFFFFF & ~(eq - 1)),
    ]
    for index, (name, value) in enumerate(zip(names, expected, strict=True)):
        assert (out[:, :, index] == value).all(), name


def test_wide_special_registers_are_read_whole():
    a = np.zeros(32, "u8")
    d = compute("mov.u64 d, %clock64; add.u64 d, d, a;", "u8", a=a)
    assert (d == d[0]).all()


def test_a_trap_ends_the_launch():
    with pytest.raises(Fault, match="executed a trap") as raised:
        compute("mov.f32 d, a; trap;", "f4", a=floats("f4", 1, 32))
    assert raised.value.kind == "trap"


@pytest.mark.parametrize("order", ["spinner first", "holder first"])
def test_a_lock_that_threads_of_one_warp_want_is_given_to_each(order):
    # Whoever has the lock must go on, wherever the others that spin stand in the code.
    critical = (
        "ld.volatile.global.u32 v, [at+4]; add.u32 v, v, 1; st.volatile.global.u32 [at+4], v;"
    )
    release = "fence.acq_rel.gpu; atom.global.exch.b32 v, [at], 0;"
    if order == "spinner first":
        text = f"""SPIN: atom.global.cas.b32 v, [at], 0, 1; setp.ne.u32 p, v, 0; @p bra SPIN;
            {critical} {release}"""
    else:
        text = f"""bra SPIN; HAVE: {critical} {release} bra DONE;
            SPIN: atom.global.cas.b32 v, [at], 0, 1; setp.eq.u32 p, v, 0; @p bra HAVE;
            bra SPIN; DONE:"""
    ptx = f""".visible .entry k(.param .u64 lock)
    {{ .reg .pred p; .reg .b32 v; .reg .b64 at; ld.param.u64 at, [lock]; {text} ret; }}"""
    lock = np.zeros(2, "u4")
    launch(ptx, lock, threads=32)
    assert lock.tolist() == [0, 32]


POOL = """.visible .entry k() .maxnreg 168
    {{ .reg .pred p; .reg .b32 t; mov.u32 t, %tid.x; setp.ge.u32 p, t, 128; @p bra MORE;
       setmaxnreg.dec.sync.aligned.u32 {less}; ret;
       MORE: setmaxnreg.inc.sync.aligned.u32 {more}; ret; }}"""


def test_registers_move_between_the_warps_of_a_cta():
    launch(POOL.format(less=40, more=232), threads=384)


def test_registers_that_no_warp_gives_back_are_waited_for_in_vain():
    with pytest.raises(Fault, match=r"registers of its CTA's pool") as raised:
        launch(POOL.format(less=48, more=240), threads=384)
    assert raised.value.kind == "deadlock"


def test_setmaxnreg_does_not_go_the_other_way():
    with pytest.raises(Fault, match=r"setmaxnreg\.dec to 200 registers, but a thread has 168"):
        launch(POOL.format(less=200, more=208), threads=384)
