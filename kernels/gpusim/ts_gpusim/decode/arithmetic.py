# SPDX-License-Identifier: MIT
"""Integer and floating-point arithmetic (PTX ISA 9.7.1 to 9.7.5)."""

from __future__ import annotations

from ts_gpusim.decode.builder import Builder
from ts_gpusim.decode.fields import ROUNDINGS, Decode, type_of
from ts_gpusim.ptx.syntax import Instruction, Register

# Modifiers that change no result here: rounding to nearest even is what is done without one, the
# approximations are as exact as the others, and subnormal numbers stay without .ftz.
_SAID_ANYWAY = {"rn", "approx", "full", "noftz"}
_DIRECTED = ("rz", "rm", "rp")


def _handler(builder: Builder, instruction: Instruction, name: str, known: dict[str, str]) -> str:
    """`name`, then what `known` has for the modifiers, in its order, then the type."""
    modifiers = instruction.modifiers[:-1]
    for modifier in modifiers:
        if modifier not in known and modifier not in _SAID_ANYWAY:
            raise builder.not_executed(f".{modifier}")
    suffix = "".join(part for modifier, part in known.items() if modifier in modifiers)
    return f"{name}{suffix}.{type_of(instruction)}"


_ARITHMETIC_MODIFIERS = {
    "lo": ".lo", "hi": ".hi",
    "NaN": ".nan", "xorsign": ".xorsign", "abs": ".abs",
    **dict.fromkeys(_DIRECTED, ".directed"),
    "ftz": ".ftz", "oob": ".oob", "sat": ".sat", "relu": ".relu",
}  # fmt: skip


def _arithmetic(builder: Builder, instruction: Instruction) -> None:
    """add, sub, min, ...: every operand has the type of the instruction."""
    modifiers = instruction.modifiers
    type_ = type_of(instruction)
    destination, *sources = instruction.operands
    if "cc" in modifiers:
        return _extended(builder, instruction)
    if len(modifiers) > 1 and modifiers[-2] == "f32" and type_ in ("f16", "bf16"):
        return _mixed(builder, instruction)
    known = dict(_ARITHMETIC_MODIFIERS)
    name = "fma" if instruction.opcode == "mad" and type_[0] == "f" else instruction.opcode
    if name in ("min", "max"):
        if "xorsign" in modifiers:
            known["abs"] = ""  # .xorsign.abs is one modifier
        if len(sources) == 3:
            known["NaN"] += ".three"
            name += "" if "NaN" in modifiers else ".three"
    if name == "div" and "approx" in modifiers:
        name += ".approx"
    if type_ == "f64" and "approx" in modifiers:
        places = [builder.result(destination, type_), builder.source(sources[0], type_)]
        return builder.step(instruction.name, places)
    handler = _handler(builder, instruction, name, known)
    places = [builder.result(destination, type_), *(builder.source(s, type_) for s in sources)]
    rounding = next((ROUNDINGS[m] for m in _DIRECTED if m in modifiers), 0)
    builder.step(handler, places, modifiers=rounding)


def _mixed(builder: Builder, instruction: Instruction) -> None:
    """add, sub, fma of f32 whose first operands are halves: those become f32 first."""
    type_ = type_of(instruction)
    known = {**dict.fromkeys(_DIRECTED, ".directed"), "f32": "", "sat": ".sat"}
    name = _handler(builder, instruction, instruction.opcode, known).removesuffix(f".{type_}")
    destination, *halves, last = instruction.operands
    places = [builder.result(destination, "f32")]
    for half in halves:
        places.append(builder.temporary(4))
        source = builder.source(half, type_)
        builder.step(f"cvt.f32.{type_}", [places[-1], source], always=True)
    places.append(builder.source(last, "f32"))
    rounding = next((ROUNDINGS[m] for m in _DIRECTED if m in instruction.modifiers), 0)
    builder.step(f"{name}.f32", places, modifiers=rounding)


_READS_CARRY, _WRITES_CARRY, _SUBTRACTS = 1, 2, 4


def _extended(builder: Builder, instruction: Instruction) -> None:
    """add.cc, addc, ...: sums with the carry CC.CF, which is a predicate of its own."""
    type_ = type_of(instruction)
    opcode = instruction.opcode
    flags = _READS_CARRY if opcode.endswith("c") else 0
    flags |= _WRITES_CARRY if "cc" in instruction.modifiers else 0
    flags |= _SUBTRACTS if opcode.startswith("sub") else 0
    name = (
        f"extended.mad.{instruction.modifiers[0]}" if opcode.startswith("mad") else "extended.add"
    )
    destination, *sources = instruction.operands
    flag = Register("%CC.CF", "pred")
    carry = (builder.source if flags & _READS_CARRY else builder.result)(flag, "pred")
    places = [builder.result(destination, type_), carry]
    places += [builder.source(s, type_) for s in sources]
    builder.step(f"{name}.{type_}", places, modifiers=flags)


_WIDE = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}


def _multiply(builder: Builder, instruction: Instruction) -> None:
    if "wide" not in instruction.modifiers:
        return _arithmetic(builder, instruction)
    type_ = type_of(instruction)
    destination, *sources = instruction.operands
    places = [builder.result(destination, _WIDE[type_])]
    places += [builder.source(s, type_) for s in sources[:2]]
    places += [builder.source(s, _WIDE[type_]) for s in sources[2:]]
    builder.step(f"{instruction.opcode}.wide.{type_}", places)


def _dot(builder: Builder, instruction: Instruction) -> None:
    """dp4a, dp2a: the packed operands and the sum have 32 bits."""
    destination, *sources = instruction.operands
    places = [builder.result(destination, "b32"), *(builder.source(s, "b32") for s in sources)]
    builder.step(instruction.name, places)


ARITHMETIC: dict[str, Decode] = {
    **dict.fromkeys(("add", "sub", "div", "rem", "min", "max", "abs", "neg", "sad"), _arithmetic),
    **dict.fromkeys(("fma", "rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos"), _arithmetic),
    **dict.fromkeys(("tanh", "copysign", "mul24", "mad24"), _arithmetic),
    **dict.fromkeys(("addc", "subc", "madc"), _extended),
    **dict.fromkeys(("mul", "mad"), _multiply),
    **dict.fromkeys(("dp4a", "dp2a"), _dot),
}
