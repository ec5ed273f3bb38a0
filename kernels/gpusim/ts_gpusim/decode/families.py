# SPDX-License-Identifier: MIT
"""Instruction by instruction, which handler of the machine executes it, and with what."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ts_gpusim.decode.builder import NARROW_SHARED, SINK, Builder, Place
from ts_gpusim.decode.registers import WIDTH
from ts_gpusim.ptx.syntax import (
    Address,
    Guard,
    Immediate,
    Instruction,
    Label,
    Operand,
    PredicatePair,
    Register,
    Sink,
)

Decode = Callable[[Builder, Instruction], None]

_ROUNDINGS = {"rn": 0, "rz": 1, "rm": 2, "rp": 3}
_WHOLE = {"rni": 0, "rzi": 1, "rmi": 2, "rpi": 3}
_SIGNED = {"s8", "s16", "s32", "s64"}
_INTEGERS = _SIGNED | {"u8", "u16", "u32", "u64"}


def _type(instruction: Instruction) -> str:
    return instruction.modifiers[-1]


def _bits(type_: str) -> str:
    return f"b{8 * WIDTH[type_]}" if type_ != "pred" else "pred"


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
    return f"{name}{suffix}.{_type(instruction)}"


_ARITHMETIC_MODIFIERS = {
    "lo": ".lo", "hi": ".hi",
    "NaN": ".nan", "xorsign": ".xorsign", "abs": ".abs",
    **dict.fromkeys(_DIRECTED, ".directed"),
    "ftz": ".ftz", "sat": ".sat", "relu": ".relu",
}  # fmt: skip


def _arithmetic(builder: Builder, instruction: Instruction) -> None:
    """add, sub, min, ...: every operand has the type of the instruction."""
    modifiers = instruction.modifiers
    type_ = _type(instruction)
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
        raise builder.not_executed(".approx.f64")
    handler = _handler(builder, instruction, name, known)
    places = [builder.result(destination, type_), *(builder.source(s, type_) for s in sources)]
    rounding = next((_ROUNDINGS[m] for m in _DIRECTED if m in modifiers), 0)
    builder.step(handler, places, modifiers=rounding)


def _mixed(builder: Builder, instruction: Instruction) -> None:
    """add, sub, fma of f32 whose first operands are halves: those become f32 first."""
    type_ = _type(instruction)
    known = {**dict.fromkeys(_DIRECTED, ".directed"), "f32": "", "sat": ".sat"}
    name = _handler(builder, instruction, instruction.opcode, known).removesuffix(f".{type_}")
    destination, *halves, last = instruction.operands
    places = [builder.result(destination, "f32")]
    for half in halves:
        places.append(builder.temporary(4))
        source = builder.source(half, type_)
        builder.step(f"cvt.f32.{type_}", [places[-1], source], always=True)
    places.append(builder.source(last, "f32"))
    rounding = next((_ROUNDINGS[m] for m in _DIRECTED if m in instruction.modifiers), 0)
    builder.step(f"{name}.f32", places, modifiers=rounding)


_READS_CARRY, _WRITES_CARRY, _SUBTRACTS = 1, 2, 4


def _extended(builder: Builder, instruction: Instruction) -> None:
    """add.cc, addc, ...: sums with the carry CC.CF, which is a predicate of its own."""
    type_ = _type(instruction)
    opcode = instruction.opcode
    flags = _READS_CARRY if opcode.endswith("c") else 0
    flags |= _WRITES_CARRY if "cc" in instruction.modifiers else 0
    flags |= _SUBTRACTS if opcode.startswith("sub") else 0
    name = (
        f"extended.mad.{instruction.modifiers[0]}" if opcode.startswith("mad") else "extended.add"
    )
    destination, *sources = instruction.operands
    carry = builder.source(Register("%CC.CF", "pred"), "pred")
    places = [builder.result(destination, type_), carry]
    places += [builder.source(s, type_) for s in sources]
    builder.step(f"{name}.{type_}", places, modifiers=flags)


_WIDE = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}


def _multiply(builder: Builder, instruction: Instruction) -> None:
    if "wide" not in instruction.modifiers:
        return _arithmetic(builder, instruction)
    type_ = _type(instruction)
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


def _bitwise(builder: Builder, instruction: Instruction) -> None:
    type_ = _bits(_type(instruction))
    destination, *sources = instruction.operands
    builder.step(
        f"{instruction.opcode}.{type_}",
        [builder.result(destination, type_), *(builder.source(s, type_) for s in sources)],
    )


def _shift(builder: Builder, instruction: Instruction) -> None:
    type_ = _type(instruction)
    destination, value, amount = instruction.operands
    places = [builder.result(destination, type_), builder.source(value, type_)]
    builder.step(f"{instruction.opcode}.{type_}", [*places, builder.source(amount, "u32")])


def _words(builder: Builder, instruction: Instruction) -> None:
    """prmt, shf: all operands have 32 bits."""
    name = ".".join((instruction.opcode, *(m for m in instruction.modifiers if m != "b32"), "b32"))
    destination, *sources = instruction.operands
    places = [builder.result(destination, "b32")]
    builder.step(name, places + [builder.source(s, "b32") for s in sources])


def _lop3(builder: Builder, instruction: Instruction) -> None:
    destination, *sources = instruction.operands
    if not isinstance(destination, PredicatePair):
        places = [builder.result(destination, "b32")]
        return builder.step("lop3.b32", places + [builder.source(s, "b32") for s in sources])
    # d|p: p says whether d is not zero, combined with the last operand.
    result = builder.result(destination.first, "b32")
    builder.step("lop3.b32", [result, *(builder.source(s, "b32") for s in sources[:-1])])
    places = [builder.result(destination.second, "pred"), SINK, result, builder.constant(0, 4)]
    places.append(builder.source(sources[-1], "pred"))
    how = _COMBINATIONS[instruction.modifiers[0]]
    builder.step("setp.ne.b32", places, modifiers=how)


def _field(builder: Builder, instruction: Instruction) -> None:
    """bfe, bfi: position and length have 32 bits."""
    type_ = _type(instruction)
    destination, *sources = instruction.operands
    places = [builder.result(destination, type_)]
    places += [builder.source(s, type_) for s in sources[:-2]]
    places += [builder.source(s, "u32") for s in sources[-2:]]
    builder.step(f"{instruction.opcode}.{type_}", places)


def _count(builder: Builder, instruction: Instruction) -> None:
    """popc, clz, bfind: the result has 32 bits."""
    type_ = _type(instruction)
    destination, source = instruction.operands
    places = [builder.result(destination, "u32"), builder.source(source, type_)]
    shift = ".shiftamt" if "shiftamt" in instruction.modifiers else ""
    builder.step(f"{instruction.opcode}{shift}.{type_}", places)


def _pair(destination: Operand) -> tuple[Operand, Operand]:
    """`p|q`, or the one that is written and the sink."""
    if isinstance(destination, PredicatePair):
        return destination.first, destination.second
    return destination, Sink()


_COMPARISONS = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
_COMBINATIONS = {"and": 1, "or": 2, "xor": 3}
_NEGATED = 4


def _setp(builder: Builder, instruction: Instruction) -> None:
    destination, a, b, *rest = instruction.operands
    first, second = _pair(destination)
    type_ = _type(instruction)
    results = [builder.result(first, "pred"), builder.result(second, "pred")]
    if type_ not in ("f16x2", "bf16x2"):
        return _compare(builder, instruction, results, a, b, rest)
    # The first predicate is of the low halves, the second of the high ones.
    half = type_.removesuffix("x2")
    sources = [_split_halves(builder, builder.source(o, "b32")) for o in (a, b)]
    for index, result in enumerate(results):
        pair = [_half_as_f32(builder, instruction, source[index], half) for source in sources]
        _compare_places(builder, instruction, [result, SINK], "f32", pair, rest)


def _compare(
    builder: Builder,
    instruction: Instruction,
    results: list[Place],
    a: Operand,
    b: Operand,
    rest: Sequence[Operand],
) -> None:
    """The results: a predicate and its complement."""
    type_ = _type(instruction)
    sources = [builder.source(a, type_), builder.source(b, type_)]
    if type_ in ("f16", "bf16"):
        sources = [_half_as_f32(builder, instruction, source, type_) for source in sources]
        type_ = "f32"
    elif "ftz" in instruction.modifiers:
        sources = [_flushed(builder, source) for source in sources]
    _compare_places(builder, instruction, results, type_, sources, rest)


def _compare_places(
    builder: Builder,
    instruction: Instruction,
    results: list[Place],
    type_: str,
    sources: list[Place],
    rest: Sequence[Operand],
) -> None:
    modifiers = instruction.modifiers
    comparison = _COMPARISONS.get(modifiers[0], modifiers[0])
    combination = next((c for n, c in _COMBINATIONS.items() if n in modifiers), 0)
    combined = [builder.source(rest[0], "pred")] if combination else []
    places = [*results, *sources, *combined]
    builder.step(f"setp.{comparison}.{type_}", places, modifiers=combination)


def _flushed(builder: Builder, source: Place) -> Place:
    flushed = builder.temporary(4)
    builder.step("cvt.f32.f32", [flushed, source], modifiers=_CVT_FTZ, always=True)
    return flushed


def _split_halves(builder: Builder, pair: Place) -> list[Place]:
    halves = [builder.temporary(2), builder.temporary(2)]
    builder.step("split.32.16", [*halves, pair], always=True)
    return halves


def _half_as_f32(builder: Builder, instruction: Instruction, half: Place, type_: str) -> Place:
    if "ftz" in instruction.modifiers:
        raise builder.not_executed(f".ftz of {type_}")
    wide = builder.temporary(4)
    builder.step(f"cvt.f32.{type_}", [wide, half], always=True)
    return wide


_FLOAT_ONE = 0x3F800000


def _set(builder: Builder, instruction: Instruction) -> None:
    """As setp, and the result all ones (or 1.0) or zero."""
    to, type_ = instruction.modifiers[-2:]
    if to not in ("u32", "s32", "f32") or type_ in ("f16", "bf16", "f16x2", "bf16x2"):
        raise builder.not_executed(f".{to}.{type_}")
    destination, a, b, *rest = instruction.operands
    predicate = builder.temporary(0)
    _compare(builder, instruction, [predicate, SINK], a, b, rest)
    true = builder.constant(_FLOAT_ONE if to == "f32" else 0xFFFFFFFF, 4)
    places = [builder.result(destination, to), true, builder.constant(0, 4), predicate]
    builder.step("selp.b32", places)


def _testp(builder: Builder, instruction: Instruction) -> None:
    type_ = _type(instruction)
    destination, source = instruction.operands
    places = [builder.result(destination, "pred"), builder.source(source, type_)]
    builder.step(instruction.name, places)


def _slct(builder: Builder, instruction: Instruction) -> None:
    """The first source where the third is at least zero, else the second."""
    type_, chooser = instruction.modifiers[-2:]
    destination, a, b, c = instruction.operands
    predicate = builder.temporary(0)
    value = builder.source(c, chooser)
    if "ftz" in instruction.modifiers:
        value = _flushed(builder, value)
    builder.step(f"setp.ge.{chooser}", [predicate, SINK, value, builder.constant(0, 4)])
    places = [builder.result(destination, type_)]
    places += [builder.source(a, type_), builder.source(b, type_), predicate]
    builder.step(f"selp.{_bits(type_)}", places)


def _selp(builder: Builder, instruction: Instruction) -> None:
    type_ = _bits(_type(instruction))
    destination, a, b, predicate = instruction.operands
    given = _type(instruction)
    sources = [builder.source(a, given), builder.source(b, given)]
    places = [builder.result(destination, given), *sources, builder.source(predicate, "pred")]
    builder.step(f"selp.{type_}", places)


def _mov(builder: Builder, instruction: Instruction) -> None:
    type_ = _type(instruction)
    destination, source = instruction.operands
    parts = builder.vector(destination)
    pieces = builder.vector(source)
    width = builder.width(type_)
    if len(parts) > 1:
        part = width // len(parts)
        places = [builder.result(p, f"b{8 * part}") for p in parts]
        whole = builder.source(pieces[0], type_)
        return builder.step(f"split.{8 * width}.{8 * part}", [*places, whole])
    if len(pieces) > 1:
        part = width // len(pieces)
        places = [builder.source(p, f"b{8 * part}") for p in pieces]
        whole = builder.result(parts[0], type_)
        return builder.step(f"join.{8 * part}.{8 * width}", [whole, *places])
    places = [builder.result(parts[0], type_), builder.source(pieces[0], type_)]
    builder.step(f"mov.{_bits(type_)}", places)


_CVT_RELU, _CVT_SATFINITE, _CVT_FTZ, _CVT_SAT, _CVT_WHOLE = 4, 8, 16, 32, 64
_CVT_FLAGS = {
    "relu": _CVT_RELU, "satfinite": _CVT_SATFINITE, "ftz": _CVT_FTZ, "sat": _CVT_SAT,
    **_ROUNDINGS,
    **{name: _CVT_WHOLE | rounding for name, rounding in _WHOLE.items()},
}  # fmt: skip


def _container(type_: str) -> int:
    """Bytes of the register that a conversion reads or writes."""
    return 2 if type_ in ("u8", "s8") else WIDTH[type_]


def _cvt(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    if modifiers[0] == "pack":
        return _cvt_pack(builder, instruction)
    to, from_ = modifiers[-2:]
    destination, *sources = instruction.operands
    flags = 0
    name = f"cvt.{to}.{from_}"
    for modifier in modifiers[:-2]:
        if modifier == "rna":
            name = f"cvt.rna.{to}.{from_}"
        elif modifier in _CVT_FLAGS:
            flags |= _CVT_FLAGS[modifier]
        else:
            raise builder.not_executed(f".{modifier}")
    for type_ in (to, from_):
        builder.width(type_)
    places = [_cvt_source(builder, source, from_) for source in sources]
    # The register of the result may be wider than its type.
    width = _container(to)
    given = builder.width(destination.type) if isinstance(destination, Register) else width
    if given == width:
        result = builder.result(destination, f"b{8 * width}")
        return builder.step(name, [result, *places], modifiers=flags)
    if given < width or to not in _INTEGERS:
        raise builder.error(f"{destination} does not have the width of .{to}: declare another")
    narrow = builder.temporary(width)
    builder.step(name, [narrow, *places], modifiers=flags)
    sign = "s" if to in _SIGNED else "u"
    widened = [builder.result(destination, f"b{8 * given}"), narrow]
    builder.step(f"cvt.{sign}{8 * given}.{sign}{8 * width}", widened)


def _cvt_source(builder: Builder, source: Operand, type_: str) -> Place:
    width = _container(type_)
    if isinstance(source, Register) and WIDTH[source.type] > width:
        place = Place(builder.registers.register(source), 0, WIDTH[source.type])
        return builder.fitted(place, width)
    return builder.source(source, "u16" if type_ in ("u8", "s8") else type_)


def _cvt_pack(builder: Builder, instruction: Instruction) -> None:
    """Two s32, clamped, and what fills the upper bits if there is room."""
    destination, a, b, *rest = instruction.operands
    places = [builder.result(destination, "b32")]
    places += [builder.source(a, "s32"), builder.source(b, "s32")]
    places.append(builder.source(rest[0], "b32") if rest else builder.constant(0, 4))
    builder.step(f"cvt.pack.{instruction.modifiers[2]}", places)


_SPACES = ("global", "shared", "param", "local", "const")
_SHARED = 1
_GLOBAL = 4
_WINDOW = 1 << 60


def _cvta(builder: Builder, instruction: Instruction) -> None:
    destination, source = instruction.operands
    to = instruction.modifiers[0] == "to"
    space = instruction.modifiers[1 if to else 0].split("::")[0]
    type_ = _type(instruction)
    if type_ != "u64":
        raise builder.error("only 64-bit generic addresses are executed")
    value = builder.source(source, type_)
    result = builder.result(destination, type_)
    if space != "shared":
        return builder.step("mov.b64", [result, value])
    if to:
        mask = builder.constant(_WINDOW - 1, 8)
        return builder.step("and.b64", [result, value, mask])
    builder.step("or.b64", [result, value, builder.constant(_WINDOW, 8)])


def _space(instruction: Instruction) -> int:
    """Modifier of an access: shared memory or not, if the instruction says so."""
    spaces = {m.split("::")[0] for m in instruction.modifiers} & set(_SPACES)
    if not spaces:
        return 0
    return _SHARED if "shared" in spaces else _GLOBAL


def _access(builder: Builder, instruction: Instruction) -> None:
    """ld and st."""
    for modifier in ("async", "bulk"):
        if modifier in instruction.modifiers:
            raise builder.not_executed(f".{modifier}")
    loads = instruction.opcode.startswith("ld")
    type_ = _type(instruction)
    registers, address = instruction.operands[:2] if loads else instruction.operands[1::-1]
    elements = builder.vector(registers)
    place = builder.address(address)
    vector = next((int(m[1]) for m in instruction.modifiers if m in ("v2", "v4", "v8")), 1)
    if len(elements) != vector:
        raise builder.error(f"{len(elements)} registers are given for {vector} elements")
    modifiers = vector << 8 | _space(instruction) | _narrow(place)
    width = builder.width(type_)
    widths = {builder.width(e.type) for e in elements if isinstance(e, Register)}
    container = max(widths, default=width)
    if container < width:
        raise builder.error(f"a register of {8 * container} bits is too narrow for .{type_}")
    bits = f"b{8 * container}"
    places = [builder.result(e, bits) if loads else builder.source(e, bits) for e in elements]
    memory = type_ if type_ in _SIGNED and loads and type_ != "s64" else f"u{8 * width}"
    handler = f"{'ld' if loads else 'st'}.{memory}.{8 * container}"
    builder.step(handler, [*places, place], modifiers=modifiers)


_ATOMS = ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")


def _atom(builder: Builder, instruction: Instruction) -> None:
    """atom, and red, which has no result."""
    if "async" in instruction.modifiers:
        raise builder.not_executed(".async")
    type_ = _type(instruction)
    operands: list[Operand] = list(instruction.operands)
    if "L2::cache_hint" in instruction.modifiers:
        operands.pop()
    name = next(m for m in instruction.modifiers if m in _ATOMS)
    count = next((int(m[1]) for m in instruction.modifiers if m in ("v2", "v4", "v8")), 1)
    results = [SINK] * count
    if instruction.opcode == "atom":
        wanted = operands.pop(0)
        elements: list[Operand] = builder.vector(wanted)
        if isinstance(wanted, Sink):
            elements = [wanted] * count
        results = [builder.result(element, type_) for element in elements]
    address = builder.address(operands[0])
    values = [builder.source(e, type_) for v in operands[1:] for e in builder.vector(v)]
    if len(results) != count or len(values) != count * len(operands[1:]):
        raise builder.error(f"the operands have not the {count} elements of the vector")
    modifiers = count << 8 | _space(instruction) | _narrow(address)
    builder.step(f"atom.{name}.{type_}", [*results, address, *values], modifiers=modifiers)


def _nop(builder: Builder, instruction: Instruction) -> None:
    builder.step("nop", [])


def _createpolicy(builder: Builder, instruction: Instruction) -> None:
    result = builder.result(instruction.operands[0], "b64")
    builder.step("mov.b64", [result, builder.constant(0, 8)])


def _bra(builder: Builder, instruction: Instruction) -> None:
    (label,) = instruction.operands
    builder.step("bra", [], target=label.name)  # type: ignore[union-attr]


def _brx(builder: Builder, instruction: Instruction) -> None:
    """brx.idx: a branch for each target of the list."""
    index, targets = instruction.operands
    place = builder.source(index, "u32")
    assert isinstance(targets, Label)
    for number, target in enumerate(builder.kernel.branch_targets[targets.name]):
        chosen = Register("%brx", "pred")
        places = [builder.source(chosen, "pred"), SINK, place, builder.constant(number, 4)]
        guard = instruction.guard
        if guard is None:
            builder.step("setp.eq.u32", places)
        else:
            places.append(builder.source(guard.predicate, "pred"))
            how = _COMBINATIONS["and"] | (_NEGATED if guard.negated else 0)
            builder.step("setp.eq.u32", places, modifiers=how, always=True)
        builder.step("bra", [], guard=Guard(chosen, negated=False), target=target)
    builder.step("brx.idx.no_target", [place])


def _ret(builder: Builder, instruction: Instruction) -> None:
    builder.step("exit", [])


def _trap(builder: Builder, instruction: Instruction) -> None:
    builder.step("trap", [])


def _barrier(builder: Builder, instruction: Instruction) -> None:
    """bar and barrier: named barriers, a warp's, a cluster's."""
    modifiers = [m for m in instruction.modifiers if m not in ("cta", "aligned")]
    operands = instruction.operands
    if modifiers[0] == "warp":
        return builder.step("bar.warp.sync", [builder.source(operands[0], "b32")])
    if modifiers[0] == "cluster":
        return builder.step(f"barrier.cluster.{modifiers[1]}", [])
    if modifiers[0] not in ("sync", "arrive"):
        raise builder.not_executed(f".{modifiers[0]}")
    count = builder.source(operands[1], "u32") if len(operands) > 1 else SINK
    places = [builder.source(operands[0], "u32"), count]
    builder.step(f"bar.{modifiers[0]}", places)


def _narrow(place: Place) -> int:
    return NARROW_SHARED if place.width == 4 else 0


def _mbarrier(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    operands = instruction.operands
    what = modifiers[0]
    if what in ("init", "inval"):
        address = builder.address(operands[0])
        rest = [builder.source(o, "u32") for o in operands[1:]]
        return builder.step(f"mbarrier.{what}", [address, *rest], modifiers=_narrow(address))
    if what in ("expect_tx", "complete_tx"):
        address = builder.address(operands[0])
        places = [address, builder.source(operands[1], "u32")]
        return builder.step(f"mbarrier.{what}", places, modifiers=_narrow(address))
    if what == "arrive":
        if "noComplete" in modifiers:
            raise builder.not_executed(".noComplete")
        state = SINK
        if not isinstance(operands[0], Address):
            state = builder.result(operands[0], "b64")
            operands = operands[1:]
        address = builder.address(operands[0])
        value = builder.source(operands[1], "u32") if len(operands) > 1 else SINK
        count, expected = (SINK, value) if "expect_tx" in modifiers else (value, SINK)
        places = [state, address, count, expected]
        return builder.step("mbarrier.arrive", places, modifiers=_narrow(address))
    if what in ("try_wait", "test_wait"):
        parity = "parity" in modifiers
        address = builder.address(operands[1])
        phase = builder.source(operands[2], "u32" if parity else "b64")
        places = [builder.result(operands[0], "pred"), address, phase]
        name = f"mbarrier.{what}{'.parity' if parity else ''}"
        return builder.step(name, places, modifiers=_narrow(address))
    raise builder.not_executed(f".{what}")


def _mapa(builder: Builder, instruction: Instruction) -> None:
    """The address of the same place in another CTA of the cluster."""
    type_ = _type(instruction)
    width = WIDTH[type_]
    destination, address, rank = instruction.operands
    inside = builder.temporary(width)
    kept = ((1 << 24) - 1) | (0 if "shared::cluster" in instruction.modifiers else _WINDOW)
    mask = builder.constant(kept, width)
    bits = f"b{8 * width}"
    builder.step(f"and.{bits}", [inside, builder.source(address, type_), mask], always=True)
    shifted = builder.temporary(width)
    number = builder.source(rank, "u32")
    if width == 8:
        number = builder.fitted(number, 8)
    places = [shifted, number, builder.constant(24, 4)]
    builder.step(f"shl.{bits}", places, always=True)
    builder.step(f"or.{bits}", [builder.result(destination, type_), inside, shifted])


def _shfl(builder: Builder, instruction: Instruction) -> None:
    destination, *sources = instruction.operands
    first, second = _pair(destination)
    places = [builder.result(first, "b32"), builder.result(second, "pred")]
    places += [builder.source(s, "b32") for s in sources]
    builder.step(f"shfl.{instruction.modifiers[1]}", places)


def _vote(builder: Builder, instruction: Instruction) -> None:
    destination, source, mask = instruction.operands
    mode = instruction.modifiers[1]
    result = builder.result(destination, "b32" if mode == "ballot" else "pred")
    places = [result, builder.source(source, "pred"), builder.source(mask, "b32")]
    builder.step(f"vote.{mode}", places)


def _match(builder: Builder, instruction: Instruction) -> None:
    type_ = _type(instruction)
    destination, source, mask = instruction.operands
    first, second = _pair(destination)
    places = [builder.result(first, "b32"), builder.result(second, "pred")]
    places += [builder.source(source, type_), builder.source(mask, "b32")]
    builder.step(f"match.{instruction.modifiers[0]}.{type_}", places)


def _redux(builder: Builder, instruction: Instruction) -> None:
    type_ = _type(instruction)
    destination, source, mask = instruction.operands
    places = [builder.result(destination, type_), builder.source(source, type_)]
    suffix = "".join(f".{m.lower()}" for m in instruction.modifiers if m in ("abs", "NaN"))
    name = f"redux.{instruction.modifiers[1]}{suffix}.{type_}"
    builder.step(name, [*places, builder.source(mask, "b32")])


def _elect(builder: Builder, instruction: Instruction) -> None:
    destination, mask = instruction.operands
    assert isinstance(destination, PredicatePair)
    places = [builder.result(destination.first, "b32"), builder.result(destination.second, "pred")]
    builder.step("elect", [*places, builder.source(mask, "b32")])


def _activemask(builder: Builder, instruction: Instruction) -> None:
    builder.step("activemask", [builder.result(instruction.operands[0], "b32")])


FAMILIES: dict[str, Decode] = {
    **dict.fromkeys(("add", "sub", "div", "rem", "min", "max", "abs", "neg", "sad"), _arithmetic),
    **dict.fromkeys(("fma", "rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos"), _arithmetic),
    **dict.fromkeys(("tanh", "copysign", "mul24", "mad24"), _arithmetic),
    **dict.fromkeys(("addc", "subc", "madc"), _extended),
    **dict.fromkeys(("mul", "mad"), _multiply),
    **dict.fromkeys(("dp4a", "dp2a"), _dot),
    **dict.fromkeys(("and", "or", "xor", "not", "cnot", "brev"), _bitwise),
    **dict.fromkeys(("shl", "shr"), _shift),
    **dict.fromkeys(("prmt", "shf"), _words),
    "lop3": _lop3,
    **dict.fromkeys(("bfe", "bfi"), _field),
    **dict.fromkeys(("popc", "clz", "bfind"), _count),
    "setp": _setp,
    "set": _set,
    "testp": _testp,
    "selp": _selp,
    "slct": _slct,
    "mov": _mov,
    "cvt": _cvt,
    "cvta": _cvta,
    "ld": _access,
    "st": _access,
    "atom": _atom,
    "red": _atom,
    "bra": _bra,
    "brx": _brx,
    "ret": _ret,
    "exit": _ret,
    "trap": _trap,
    "bar": _barrier,
    "barrier": _barrier,
    "mbarrier": _mbarrier,
    "mapa": _mapa,
    "shfl": _shfl,
    "vote": _vote,
    "match": _match,
    "redux": _redux,
    "elect": _elect,
    "activemask": _activemask,
    "createpolicy": _createpolicy,
    # What orders memory and what only hints: memory is ordered here, in every run.
    **dict.fromkeys(("fence", "membar", "prefetch", "prefetchu", "discard"), _nop),
    **dict.fromkeys(("applypriority", "setmaxnreg", "griddepcontrol", "nanosleep"), _nop),
}


def immediate(builder: Builder, operand: object) -> int:
    if not isinstance(operand, Immediate):
        raise builder.error(f"{operand} must be a constant")
    return operand.value
