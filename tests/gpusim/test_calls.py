# SPDX-License-Identifier: MIT
"""Device functions: calls, returns, recursion, functions by address (PTX ISA 9.7.12.5, 7.1)."""

from __future__ import annotations

import numpy as np
import pytest
from gpusim_kernels import HEADER, launch, same
from ts_gpusim.faults import Fault
from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.parser import parse

TID = np.arange(64, dtype="u4")


def run(functions: str, body: str, a: np.ndarray = TID) -> np.ndarray:
    """What `body` leaves in %d, where %a is the thread's element of `a`."""
    ptx = f"""
    {functions}
    .visible .entry k(.param .u64 in, .param .u64 out)
    {{
        .reg .pred %p; .reg .b32 %t, %a, %d; .reg .b64 %in, %out, %f;
        mov.u32 %t, %tid.x;
        ld.param.u64 %in, [in]; mad.wide.u32 %in, %t, 4, %in;
        ld.param.u64 %out, [out]; mad.wide.u32 %out, %t, 4, %out;
        ld.global.u32 %a, [%in];
        {body}
        st.global.u32 [%out], %d;
        ret;
    }}"""
    out = np.zeros_like(a)
    launch(ptx, a, out, threads=a.size)
    return out


def call(name: str, argument: str = "%a", result: str = "%d", prototype: str = "") -> str:
    """As nvcc writes it."""
    return f"""{{ .param .b32 param0; st.param.b32 [param0+0], {argument};
        .param .b32 retval0;
        {prototype}
        call.uni (retval0), {name}, (param0){", proto" if prototype else ""};
        ld.param.b32 {result}, [retval0+0]; }}"""


SQUARE = """.func (.param .b32 func_retval0) square(.param .b32 square_param_0)
    { .reg .b32 %a; ld.param.b32 %a, [square_param_0]; mul.lo.u32 %a, %a, %a;
      st.param.b32 [func_retval0], %a; ret; }"""
TRIPLE = SQUARE.replace("square", "triple").replace("mul.lo.u32 %a, %a, %a", "mul.lo.u32 %a, %a, 3")
PROTOTYPE = "proto: .callprototype (.param .b32 _) _ (.param .b32 _);"


def test_a_function_has_registers_of_its_own():
    d = run(SQUARE, f"{call('square')} add.u32 %d, %d, %a;")
    assert same(d, TID * TID + TID)


def test_functions_call_functions():
    outer = f"""{SQUARE} .func (.param .b32 r) outer(.param .b32 x)
        {{ .reg .b32 %a, %d; ld.param.b32 %a, [x]; add.u32 %a, %a, 1; {call("square")}
           add.u32 %d, %d, %a; st.param.b32 [r], %d; ret; }}"""
    assert same(run(outer, call("outer")), (TID + 1) ** 2 + TID + 1)


def test_arguments_and_results_may_be_registers_and_constants():
    function = """.func (.param .b32 r) f(.param .b32 x, .param .b64 y)
        { .reg .b32 %a, %b; .reg .b64 %c; ld.param.b32 %a, [x]; ld.param.b64 %c, [y];
          cvt.u32.u64 %b, %c; sub.u32 %a, %a, %b; st.param.b32 [r], %a; ret; }"""
    assert same(run(function, "call (%d), f, (%a, 7);"), TID - np.uint32(7))


def test_structs_are_passed_and_returned_by_value():
    function = """.func (.param .align 8 .b8 r[16]) f(.param .align 8 .b8 s[16])
        { .reg .b32 %a; .reg .b64 %b; ld.param.b32 %a, [s+4]; ld.param.b64 %b, [s+8];
          st.param.b64 [r], %b; add.u32 %a, %a, 1; st.param.b32 [r+12], %a; ret; }"""
    body = """{ .param .align 8 .b8 param0[16]; .param .align 8 .b8 retval0[16]; .reg .b32 %x, %y;
        st.param.b32 [param0+4], %a; cvt.u64.u32 %f, %a; mul.lo.u64 %f, %f, 100;
        st.param.b64 [param0+8], %f;
        call (retval0), f, (param0);
        ld.param.b32 %x, [retval0]; ld.param.b32 %y, [retval0+12]; add.u32 %d, %x, %y; }"""
    assert same(run(function, body), TID * 100 + TID + 1)


def test_functions_may_call_themselves():
    fib = """.func (.param .b32 r) fib(.param .b32 n)
        { .reg .pred %p; .reg .b32 %n, %a, %b; ld.param.b32 %n, [n];
          setp.lt.u32 %p, %n, 2; mov.u32 %a, %n; @%p bra DONE;
          sub.u32 %a, %n, 1; CALL1 sub.u32 %n, %n, 2; CALL2 add.u32 %a, %a, %b;
          DONE: st.param.b32 [r], %a; ret; }"""
    fib = fib.replace("CALL1", call("fib", "%a", "%a")).replace("CALL2", call("fib", "%n", "%b"))
    numbers = [0, 1]
    for _ in range(20):
        numbers.append(numbers[-1] + numbers[-2])
    a = TID % 9  # threads of a warp recurse to different depths
    assert same(run(fib, call("fib"), a), np.array(numbers, "u4")[a])


def test_local_variables_are_of_one_call():
    # Each depth fills an array, calls itself, and finds its array as it was.
    function = f"""{SQUARE} .func (.param .b32 r) f(.param .b32 n)
        {{ .local .align 4 .b8 own[16]; .reg .pred %p; .reg .b32 %a, %d, %x; .reg .b64 %at;
          ld.param.b32 %a, [n]; mov.u64 %at, own; cvta.local.u64 %at, %at;
          st.u32 [%at+8], %a; setp.eq.u32 %p, %a, 0; mov.u32 %d, 0; @%p bra DONE;
          sub.u32 %x, %a, 1; {call("f", "%x")}
          DONE: ld.local.u32 %x, [own+8]; add.u32 %d, %d, %x; st.param.b32 [r], %d; ret; }}"""
    a = TID % 7
    assert same(run(function, call("f"), a), a * (a + 1) // 2)


def test_threads_return_to_where_each_called_from():
    body = f"""setp.lt.u32 %p, %a, 10; @%p bra LOW;
        {call("square", "2")} bra JOIN;
        LOW: {call("square", "3")} add.u32 %d, %d, %a;
        JOIN: activemask.b32 %t; mad.lo.u32 %d, %t, 0, %d; popc.b32 %t, %t; add.u32 %d, %d, %t;"""
    assert same(run(SQUARE, body), np.where(TID < 10, 9 + TID, 4).astype("u4") + np.uint32(32))


def test_a_guarded_call_is_of_the_threads_whose_guard_is_true():
    body = "setp.lt.u32 %p, %a, 5; mov.u32 %d, 1; @%p call (%d), square, (%a);"
    assert same(run(SQUARE, body), np.where(TID < 5, TID * TID, 1).astype("u4"))


def test_functions_are_called_by_their_addresses():
    table = ".global .align 8 .u64 table[2] = {square, generic(triple)};"
    body = f"""and.b32 %t, %a, 1; mov.u64 %f, table; mad.wide.u32 %f, %t, 8, %f;
        ld.global.u64 %f, [%f]; {call("%f", prototype=PROTOTYPE)}"""
    d = run(SQUARE + TRIPLE + table, body)
    assert same(d, np.where(TID % 2 == 0, TID * TID, TID * 3).astype("u4"))


def test_the_address_of_a_function_is_a_value():
    body = f"mov.u64 %f, triple; {call('%f', prototype=PROTOTYPE)}"
    assert same(run(SQUARE + TRIPLE, body), TID * 3)


def test_what_is_no_function_cannot_be_called():
    body = f"mov.u64 %f, triple; add.u64 %f, %f, 4; {call('%f', prototype=PROTOTYPE)}"
    with pytest.raises(Fault, match="which is the address of no function") as raised:
        run(TRIPLE, body)
    assert raised.value.kind == "call"


def test_recursion_without_end_is_a_fault():
    function = f""".func (.param .b32 r) f(.param .b32 n)
        {{ .reg .b32 %a, %d; ld.param.b32 %a, [n]; {call("f")} st.param.b32 [r], %d; ret; }}"""
    with pytest.raises(Fault, match="bytes of local memory that a thread has for frames") as raised:
        run(function, call("f"))
    assert raised.value.kind == "stack"


def test_a_thread_that_exits_in_a_function_does_not_come_back():
    function = SQUARE.replace("mul.lo", "setp.gt.u32 %p, %a, 9; @%p exit; mul.lo")
    function = function.replace(".reg .b32 %a;", ".reg .b32 %a; .reg .pred %p;")
    assert same(run(function, call("square")), np.where(TID > 9, 0, TID * TID).astype("u4"))


def test_functions_share_the_modules_variables():
    functions = """.shared .align 4 .b8 tile[256]; .func put(.param .b32 x)
        { .reg .b32 %a, %at; ld.param.b32 %a, [x]; mov.u32 %at, %tid.x; shl.b32 %at, %at, 2;
          add.u32 %at, %at, tile; st.shared.u32 [%at], %a; ret; }"""
    functions = functions.replace(
        "add.u32 %at, %at, tile", "mov.u32 %b, tile; add.u32 %at, %at, %b"
    )
    functions = functions.replace("%a, %at;", "%a, %at, %b;", 1)
    body = """call put, (%a); bar.sync 0; mov.u32 %d, tile; xor.b32 %t, %t, 63;
        mad.lo.u32 %d, %t, 4, %d; ld.shared.u32 %d, [%d];"""
    assert same(run(functions, body), TID[::-1].copy())


def test_shared_variables_of_functions_count_as_the_kernels():
    function = """.func f() { .shared .align 4 .b8 tile[240000]; .reg .b32 %a;
        ld.shared.b32 %a, [tile]; ret; }"""
    with pytest.raises(ValueError, match="it wants 240000 bytes of shared memory"):
        run(function, "call f;")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("call (%d), square, (%a, %a);", "2 arguments are given, and the function has 1"),
        ("call square, (%a);", "0 results are given, and the function has 1"),
        ("call (%d), outside, (%a);", "function `outside` has no body in this module"),
        ("mov.u64 %f, square; call (%d), %f, (%a);", r"needs a \.callprototype"),
    ],
)
def test_calls_that_do_not_fit_are_refused(body, sentence):
    outside = ".extern .func (.param .b32 r) outside(.param .b32 x);"
    with pytest.raises(PtxError, match=sentence):
        run(SQUARE + outside, body)


def test_a_prototype_may_stand_before_its_function():
    first = ".func (.param .b32 r) square(.param .b32 x);"
    module = parse(f"{HEADER} {first} {SQUARE}")
    assert module.functions["square"].defined
