# SPDX-License-Identifier: MIT
"""wgmma and tcgen05."""

from __future__ import annotations

import re
from dataclasses import replace

from ts_gpusim.decode.builder import NARROW_SHARED, Builder, Place
from ts_gpusim.decode.families import immediate
from ts_gpusim.decode.register_flow import ACCUMULATE, LOAD, MULTIPLY
from ts_gpusim.ptx.syntax import Address, Instruction, Operand, Vector

# Of the PTX ISA: what has a form in the tables, but is not executed yet.
REFUSED_SECTIONS = frozenset(
    {
        "9.7.14.6.3",  # mma.sp
        "9.7.15.6.4",  # wgmma.mma_async.sp
        "9.7.16.10.9.2",  # tcgen05.mma.sp
        "9.7.16.10.9.4",  # tcgen05.mma.ws.sp
    }
)

# In the order of machine/tcgen05.cpp; registers of .x1 where it is not one.
_SHAPES = ("32x32b", "16x64b", "16x128b", "16x256b", "16x32bx2")
_REGISTERS = {"16x128b": 2, "16x256b": 4}
_REDUCTIONS = {"min": 2, "max": 3}  # as machine/reductions.h has them
_NUMBERS = ("u32", "s32", "f32")
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
    reduces = "red" in modifiers
    results = []
    if reduces:
        registers, reduced, address, *split = instruction.operands
        results = [_used(builder.result(reduced, "b32"), LOAD)]
    elif loads:
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
        flags |= immediate(builder, split[0]) << 32
    if any(m.startswith(("pack", "unpack")) for m in modifiers):
        flags |= 1 << 19
    if reduces:
        flags |= _REDUCTIONS["min" if "min" in modifiers else "max"] << 20
        flags |= _NUMBERS.index(modifiers[-1]) << 23
        flags |= ("abs" in modifiers) << 25 | ("NaN" in modifiers) << 26
    name = "tcgen05.ld.red" if reduces else f"tcgen05.{modifiers[0]}"
    builder.step(name, [*places, builder.address(address), *results], modifiers=flags)


def _cp(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    shape = next(
        m for m in modifiers if m in ("128x256b", "4x256b", "128x128b", "64x128b", "32x128b")
    )
    if shape == "4x256b":  # the ISA does not say which lanes it writes
        raise builder.not_executed(".4x256b")
    spread = next((m for m in modifiers if m in _SPREADS), None)
    flags = _pair(instruction)
    if spread is not None:
        flags |= (1 + _SPREADS.index(spread)) << 4
    if shape == "128x256b":
        flags |= 1 << 8
    widened = [i for i, source in enumerate(("b6x16_p32", "b4x16_p64")) if source in modifiers]
    if widened:
        flags |= (1 + widened[0]) << 9
    address, description = instruction.operands
    places = [builder.address(address), builder.source(description, "b64")]
    builder.step("tcgen05.cp", places, modifiers=flags)


# In the order of machine/instruction_descriptor.h.
_KINDS = ("f16", "tf32", "f8f6f4", "i8", "mxf8f6f4", "mxf4", "mxf4nvf4")
# Elements that share a scale factor (PTX ISA 9.7.16.10.7.1), in sixteens.
_BLOCKS = {
    "mxf8f6f4": {"": 2, "block32": 2, "scale_vec::1X": 2},
    "mxf4": {"": 2, "block32": 2, "scale_vec::2X": 2},
    "mxf4nvf4": {"block32": 2, "scale_vec::2X": 2, "block16": 1, "scale_vec::4X": 1},
}


def _mma(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    kind = next(m for m in modifiers if m.startswith("kind::")).removeprefix("kind::")
    if "sp" in modifiers:
        raise builder.not_executed("a sparse MMA")
    d, a, b, description, *rest = instruction.operands
    flags = _pair(instruction) | _KINDS.index(kind) << 4 | (1 << 9 if "ws" in modifiers else 0)
    if isinstance(a, Address):
        flags |= 1 << 8
        operand = builder.address(a)
    else:
        operand = builder.source(a, "b64")
    disabled: list[Place] = []
    scales: list[Place] = []
    if kind in _BLOCKS:
        flags |= _scaling(builder, kind, modifiers)
        scales = [builder.address(rest.pop(0)) for _ in range(2)]
    elif isinstance(rest[0], Vector):
        disabled = [builder.source(e, "b32") for e in rest.pop(0).elements]  # type: ignore[union-attr]
    enable, *more = rest
    masks: list[Place] = []
    if more and "ws" in modifiers:
        flags |= 1 << 11
        masks = [builder.source(more[0], "b64")]
    elif more:
        flags |= _d_scale(builder, kind, more[0]) << 24
    if "ashift" in modifiers:
        if any(m.endswith(("::use", "::fill")) for m in modifiers):
            raise builder.error(".ashift goes with neither .collector::a::use nor ::fill")
        flags |= 1 << 10
    flags |= len(disabled) << 12
    places = [
        builder.address(d),
        operand,
        builder.source(b, "b64"),
        builder.source(description, "b32"),
        builder.source(enable, "pred"),
        *disabled,
        *scales,
        *masks,
    ]
    builder.step("tcgen05.mma", places, modifiers=flags)


def _d_scale(builder: Builder, kind: str, operand: Operand) -> int:
    scale = immediate(builder, operand)
    if kind not in ("f16", "tf32") or not 0 <= scale <= 15:
        raise builder.error(
            f"D is scaled by {scale}: kinds f16 and tf32 allow 0 to 15, others none"
        )
    return scale


def _shift(builder: Builder, instruction: Instruction) -> None:
    places = [builder.address(instruction.operands[0])]
    builder.step("tcgen05.shift", places, modifiers=_pair(instruction))


def _scaling(builder: Builder, kind: str, modifiers: tuple[str, ...]) -> int:
    size = next((m for m in modifiers if m.startswith(("scale_vec", "block1", "block3"))), "")
    if size not in _BLOCKS[kind]:
        raise builder.error(
            f"kind::{kind} goes with {' or '.join('.' + s for s in _BLOCKS[kind] if s)}, "
            f"not with {'.' + size if size else 'none of them'}"
        )
    return _BLOCKS[kind][size] << 20 | (1 << 22 if size.startswith("scale_vec") else 0)


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
    "shift": _shift,
}
