# SPDX-License-Identifier: MIT
"""wgmma and tcgen05."""

from __future__ import annotations

import re
from dataclasses import replace

from ts_gpusim.decode.builder import NARROW_SHARED, Builder, Place
from ts_gpusim.decode.families import immediate
from ts_gpusim.decode.register_flow import ACCUMULATE, LOAD, MULTIPLY
from ts_gpusim.ptx.syntax import Address, Instruction, Register, Vector

# Of the PTX ISA: what has a form in the tables, but is not executed yet.
REFUSED_SECTIONS = frozenset(
    {
        "9.7.15.6.4",  # wgmma.mma_async.sp
        "9.7.16.9.3",  # tcgen05.shift
        "9.7.16.10.9.2",  # tcgen05.mma.sp
        "9.7.16.10.9.4",  # tcgen05.mma.ws.sp
    }
)

# In the order of machine/tcgen05.cpp; registers of .x1 where it is not one.
_SHAPES = ("32x32b", "16x64b", "16x128b", "16x256b", "16x32bx2")
_REGISTERS = {"16x128b": 2, "16x256b": 4}
_SPREADS = ("warpx4", "warpx2::02_13", "warpx2::01_23")

_ELEMENTS = ("f16", "bf16", "tf32", "e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "s8", "u8")
_RESULTS = ("f32", "f16", "s32")


def wgmma(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    if modifiers[0] in ("fence", "commit_group"):
        return builder.step(f"wgmma.{modifiers[0]}", [])
    if modifiers[0] == "wait_group":
        allowed = immediate(builder, instruction.operands[0])
        handler = "wgmma.wait_group" if allowed else "wgmma.wait_all"
        return builder.step(handler, [], modifiers=allowed)
    shape = next(m for m in modifiers if re.fullmatch(r"m64n\d+k\d+", m))
    n = int(re.findall(r"\d+", shape)[1])
    after = modifiers.index(shape) + 1
    satfinite = modifiers[after] == "satfinite"
    result, type_a, type_b = modifiers[after + satfinite : after + satfinite + 3]
    if "sp" in modifiers or type_a == "b1":
        raise builder.error("a sparse wgmma and one of single bits are not executed yet")
    d, a, b, predicate, *scales = instruction.operands
    places = [_used(builder.result(r, "b32"), ACCUMULATE) for r in builder.vector(d)]
    count = n // 4 if result == "f16" else n // 2
    if len(places) != count:
        raise builder.error(f"{len(places)} registers are given for D; n = {n} needs {count}")
    flags = n | _ELEMENTS.index(type_a) << 10 | _ELEMENTS.index(type_b) << 14
    flags |= _RESULTS.index(result) << 19 | satfinite << 21
    if isinstance(a, Vector):
        flags |= 1 << 18
        places += [_used(builder.source(r, "b32"), MULTIPLY) for r in a.elements]
    else:
        places.append(builder.source(a, "b64"))
    places += [builder.source(b, "b64"), builder.source(predicate, "pred")]
    constants = [builder.source(s, "s32") for s in scales]
    if not constants:  # integers have no signs
        constants = [builder.constant(1, 4)] * 2
    zero = builder.constant(0, 4)
    transposes = constants[2:]
    if isinstance(a, Vector) and len(transposes) == 1:
        transposes = [zero, *transposes]
    transposes += [zero] * (2 - len(transposes))
    builder.step("wgmma", [*places, *constants[:2], *transposes], modifiers=flags)


def _used(place: Place, how: int) -> Place:
    """A register that the instruction uses after it has been issued."""
    return place if place.use is None else replace(place, use=how)


def _pair(instruction: Instruction) -> int:
    return 1 if "cta_group::2" in instruction.modifiers else 0


def tcgen05(builder: Builder, instruction: Instruction) -> None:
    what = instruction.modifiers[0]
    if what in ("wait::ld", "wait::st"):
        return builder.step(f"tcgen05.wait.{what[-2:]}", [])
    if what in ("fence::before_thread_sync", "fence::after_thread_sync"):
        return builder.step("nop", [])
    if what == "relinquish_alloc_permit":
        return builder.step("tcgen05.relinquish", [])
    decode = _DECODE.get(what)
    if decode is None:
        raise builder.error(f"tcgen05.{what} is not executed yet")
    decode(builder, instruction)


def _alloc(builder: Builder, instruction: Instruction) -> None:
    address = builder.address(instruction.operands[0])
    flags = _pair(instruction) | (NARROW_SHARED if address.width == 4 else 0)
    places = [address, builder.source(instruction.operands[1], "u32")]
    builder.step("tcgen05.alloc", places, modifiers=flags)


def _dealloc(builder: Builder, instruction: Instruction) -> None:
    places = [builder.source(o, "u32") for o in instruction.operands]
    builder.step("tcgen05.dealloc", places)


def _access(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    loads = modifiers[0] == "ld"
    shape = next(m for m in modifiers if m in _SHAPES)
    if "red" in modifiers:
        raise builder.error("tcgen05.ld.red is not executed yet")
    if any(m.startswith(("pack", "unpack")) for m in modifiers):
        raise builder.error("packing is not executed yet")
    if loads:
        registers, address, *split = instruction.operands
    else:
        address, *split, registers = instruction.operands
    elements = builder.vector(registers)
    expected = int(modifiers[modifiers.index(shape) + 1][1:]) * _REGISTERS.get(shape, 1)
    if len(elements) != expected:
        raise builder.error(f"{len(elements)} registers are given, but it is {expected}")
    if loads:
        places = [_used(builder.result(e, "b32"), LOAD) for e in elements]
    else:
        places = [builder.source(e, "b32") for e in elements]
    flags = len(elements) << 8 | _SHAPES.index(shape) << 16
    if split:
        flags |= immediate(builder, split[0]) << 24
    places.append(builder.address(address))
    builder.step(f"tcgen05.{modifiers[0]}", places, modifiers=flags)


def _cp(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    shape = next(
        m for m in modifiers if m in ("128x256b", "4x256b", "128x128b", "64x128b", "32x128b")
    )
    if shape == "4x256b" or any(m.startswith("b8x16") for m in modifiers):
        raise builder.error("4x256b and copies that widen elements are not executed yet")
    spread = next((m for m in modifiers if m in _SPREADS), None)
    flags = _pair(instruction)
    if spread is not None:
        flags |= (1 + _SPREADS.index(spread)) << 4
    if shape == "128x256b":
        flags |= 1 << 8
    address, description = instruction.operands
    places = [builder.address(address), builder.source(description, "b64")]
    builder.step("tcgen05.cp", places, modifiers=flags)


_KINDS = {"kind::f16": 0, "kind::tf32": 1, "kind::f8f6f4": 2}


def _mma(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    kind = next((m for m in modifiers if m.startswith("kind::")), "")
    if kind not in _KINDS or "sp" in modifiers or "block_scale" in modifiers:
        raise builder.error(f"{kind or 'this kind'} is not executed yet")
    if any(m.startswith(("ashift",)) for m in modifiers):
        raise builder.error(".ashift is not executed yet")
    d, a, b, description, *rest = instruction.operands
    flags = _pair(instruction) | _KINDS[kind] << 4 | (1 << 9 if "ws" in modifiers else 0)
    if isinstance(a, Address):
        flags |= 1 << 8
        operand = builder.address(a)
    else:
        operand = builder.source(a, "b64")
    disabled: list[Place] = []
    if isinstance(rest[0], Vector):
        disabled = [builder.source(e, "b32") for e in rest.pop(0).elements]  # type: ignore[union-attr]
    enable, *more = rest
    if more and not (isinstance(more[0], Register) and "ws" in modifiers):
        raise builder.error("a scaled or masked D is not executed yet")
    if "ws" in modifiers and more:
        raise builder.error("a zero-column mask is not executed yet")
    flags |= len(disabled) << 12
    places = [
        builder.address(d),
        operand,
        builder.source(b, "b64"),
        builder.source(description, "b32"),
        builder.source(enable, "pred"),
        *disabled,
    ]
    builder.step("tcgen05.mma", places, modifiers=flags)


def _commit(builder: Builder, instruction: Instruction) -> None:
    address = builder.address(instruction.operands[0])
    flags = _pair(instruction) | (NARROW_SHARED if address.width == 4 else 0)
    places = [address]
    if "multicast::cluster" in instruction.modifiers:
        flags |= 1 << 8
        places.append(builder.source(instruction.operands[1], "u16"))
    builder.step("tcgen05.commit", places, modifiers=flags)


_DECODE = {
    "alloc": _alloc,
    "dealloc": _dealloc,
    "ld": _access,
    "st": _access,
    "mma": _mma,
    "cp": _cp,
    "commit": _commit,
}
