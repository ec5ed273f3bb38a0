# SPDX-License-Identifier: MIT
"""Instruction by instruction, which handler of the machine executes it, and with what."""

from __future__ import annotations

from collections.abc import Callable

from ts_gpusim.decode.builder import NARROW_SHARED, SINK, Builder, Place
from ts_gpusim.decode.registers import WIDTH
from ts_gpusim.ptx.syntax import Address, Immediate, Instruction, PredicatePair, Register, Sink

Decode = Callable[[Builder, Instruction], None]

_ROUNDINGS = {"rn": 0, "rz": 1, "rm": 2, "rp": 3}
_WHOLE = {"rni": 0, "rzi": 1, "rmi": 2, "rpi": 3}
_SIGNED = {"s8", "s16", "s32", "s64"}


def _type(instruction: Instruction) -> str:
    return instruction.modifiers[-1]


def _bits(type_: str) -> str:
    return f"b{8 * WIDTH[type_]}" if type_ != "pred" else "pred"


def _float_suffix(builder: Builder, instruction: Instruction) -> str:
    """Such as `.ftz.sat`, of a handler; only rounding to nearest even is executed."""
    for rounding in ("rz", "rm", "rp"):
        if rounding in instruction.modifiers:
            raise builder.error(f".{rounding} is not executed yet, only .rn is")
    return "".join(f".{m}" for m in ("ftz", "sat") if m in instruction.modifiers)


def _arithmetic(builder: Builder, instruction: Instruction) -> None:
    """add, sub, min, ...: every operand has the type of the instruction."""
    type_ = _type(instruction)
    destination, *sources = instruction.operands
    name = instruction.opcode
    if name in ("min", "max") and len(sources) == 3:
        name += "3"
    if "NaN" in instruction.modifiers:
        name += ".nan"
    for unknown in ("cc", "xorsign", "relu", "satfinite", "oob"):
        if unknown in instruction.modifiers:
            raise builder.error(f".{unknown} is not executed yet")
    suffix = ""
    if type_[0] in "fb" and type_ not in ("b16", "b32", "b64"):
        suffix = _float_suffix(builder, instruction)
    elif "sat" in instruction.modifiers:
        raise builder.error("an integer .sat is not executed yet")
    builder.step(
        f"{name}{suffix}.{type_}",
        [builder.result(destination, type_), *(builder.source(s, type_) for s in sources)],
    )


def _multiply(builder: Builder, instruction: Instruction) -> None:
    type_ = _type(instruction)
    kinds = {"lo", "hi", "wide"} & set(instruction.modifiers)
    if not kinds:
        return _arithmetic(builder, instruction)
    kind = kinds.pop()
    wide = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}
    result = wide[type_] if kind == "wide" else type_
    destination, *sources = instruction.operands
    places = [builder.result(destination, result)]
    places += [builder.source(s, type_) for s in sources[:2]]
    places += [builder.source(s, result) for s in sources[2:]]
    builder.step(f"{instruction.opcode}.{kind}.{type_}", places)


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
    """prmt, lop3, shf: all operands have 32 bits."""
    name = ".".join((instruction.opcode, *instruction.modifiers))
    destination, *sources = instruction.operands
    places = [builder.result(destination, "b32")]
    builder.step(name, places + [builder.source(s, "b32") for s in sources])


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
    builder.step(f"{instruction.opcode}.{type_}", places)


_COMPARISONS = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
_COMBINATIONS = {"and": 1, "or": 2, "xor": 3}


def _setp(builder: Builder, instruction: Instruction) -> None:
    type_ = _type(instruction)
    comparison = _COMPARISONS.get(instruction.modifiers[0], instruction.modifiers[0])
    destination, a, b, *rest = instruction.operands
    first, second = destination, Sink()
    if isinstance(destination, PredicatePair):
        first, second = destination.first, destination.second
    places = [builder.result(first, "pred"), builder.result(second, "pred")]
    sources = [builder.source(a, type_), builder.source(b, type_)]
    if "ftz" in instruction.modifiers:
        flushed = [builder.temporary(4), builder.temporary(4)]
        for place, source in zip(flushed, sources, strict=True):
            builder.step("cvt.f32.f32", [place, source], modifiers=_CVT_FTZ, always=True)
        sources = flushed
    combination = next((c for n, c in _COMBINATIONS.items() if n in instruction.modifiers), 0)
    if combination:
        sources.append(builder.source(rest[0], "pred"))
    builder.step(f"setp.{comparison}.{type_}", places + sources, modifiers=combination)


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
    width = WIDTH[type_]
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


_CVT_RELU, _CVT_SATFINITE, _CVT_FTZ, _CVT_SAT = 4, 8, 16, 32


def _container(type_: str) -> int:
    return max(WIDTH[type_], 2)


def _cvt(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    to, from_ = modifiers[-2:]
    destination, *sources = instruction.operands
    flags = 0
    name = f"cvt.{to}.{from_}"
    for modifier in modifiers[:-2]:
        if modifier in _ROUNDINGS:
            flags |= _ROUNDINGS[modifier]
        elif modifier in _WHOLE:
            flags |= _WHOLE[modifier]
            if to == "f32" and from_ == "f32":
                name = "cvt.whole.f32.f32"
        elif modifier == "rna" and to == "tf32":
            raise builder.error(".rna is not executed yet")
        elif modifier == "relu":
            flags |= _CVT_RELU
        elif modifier == "satfinite":
            flags |= _CVT_SATFINITE
        elif modifier == "ftz":
            flags |= _CVT_FTZ
        elif modifier == "sat":
            flags |= _CVT_SAT
        else:
            raise builder.error(f".{modifier} is not executed yet")
    if to in ("f32", "f64") and flags & 3 and not name.startswith("cvt.whole"):
        raise builder.error("only .rn is executed for this conversion")
    places = [_cvt_source(builder, source, from_) for source in sources]
    # The register of the result may be wider than its type.
    assert isinstance(destination, (Register, Sink))
    width = _container(to)
    given = WIDTH[destination.type] if isinstance(destination, Register) else width
    if given == width:
        result = builder.result(destination, f"b{8 * width}")
        return builder.step(name, [result, *places], modifiers=flags)
    narrow = builder.temporary(width)
    builder.step(name, [narrow, *places], modifiers=flags)
    sign = "s" if to in _SIGNED else "u"
    widened = [builder.result(destination, f"b{8 * given}"), narrow]
    builder.step(f"cvt.{sign}{8 * given}.{sign}{8 * width}", widened)


def _cvt_source(builder: Builder, source: object, type_: str) -> Place:
    if isinstance(source, Register) and WIDTH[source.type] > _container(type_):
        place = Place(builder.registers.register(source), 0, WIDTH[source.type])
        return builder.fitted(place, _container(type_))
    return builder.source(source, type_ if WIDTH[type_] > 1 else "u16")  # type: ignore[arg-type]


_SPACES = ("global", "shared", "param", "local", "const")
_SHARED = 1
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


def _access(builder: Builder, instruction: Instruction) -> None:
    """ld and st."""
    loads = instruction.opcode.startswith("ld")
    type_ = _type(instruction)
    registers, address = instruction.operands[:2] if loads else instruction.operands[1::-1]
    elements = builder.vector(registers)
    place = builder.address(address)
    spaces = {m.split("::")[0] for m in instruction.modifiers} & set(_SPACES)
    modifiers = len(elements) << 8
    if "shared" in spaces:
        modifiers |= _SHARED
    if place.width == 4:
        modifiers |= NARROW_SHARED
    if type_ in ("b128", "v8"):
        raise builder.error(f".{type_} is not executed yet")
    widths = {WIDTH[e.type] for e in elements if isinstance(e, Register)}
    container = max(widths, default=_container(type_))
    places = []
    for element in elements:
        if loads:
            places.append(builder.result(element, f"b{8 * container}"))
        else:
            places.append(builder.source(element, f"b{8 * container}"))
    memory = type_ if type_ in _SIGNED and loads else f"u{8 * WIDTH[type_]}"
    if memory == "s64":
        memory = "u64"
    handler = f"{'ld' if loads else 'st'}.{memory}.{8 * container}"
    builder.step(handler, [*places, place], modifiers=modifiers)


def _atom(builder: Builder, instruction: Instruction) -> None:
    """atom, and red, which has no result."""
    type_ = _type(instruction)
    operands = list(instruction.operands)
    result = builder.result(operands.pop(0), type_) if instruction.opcode == "atom" else SINK
    names = ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")
    name = next(m for m in instruction.modifiers if m in names)
    address = builder.address(operands[0])
    shared = any(m.startswith("shared") for m in instruction.modifiers)
    modifiers = (_SHARED if shared else 0) | (NARROW_SHARED if address.width == 4 else 0)
    values = [builder.source(v, type_) for v in operands[1:]]
    builder.step(f"atom.{name}.{type_}", [result, address, *values], modifiers=modifiers)


def _nop(builder: Builder, instruction: Instruction) -> None:
    builder.step("nop", [])


def _createpolicy(builder: Builder, instruction: Instruction) -> None:
    result = builder.result(instruction.operands[0], "b64")
    builder.step("mov.b64", [result, builder.constant(0, 8)])


def _bra(builder: Builder, instruction: Instruction) -> None:
    (label,) = instruction.operands
    builder.step("bra", [], target=label.name)  # type: ignore[union-attr]


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
        raise builder.error(f".{modifiers[0]} is not executed yet")
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
            raise builder.error(".noComplete is not executed yet")
        rest = list(operands)
        state = SINK
        if not isinstance(rest[0], Address):
            state = builder.result(rest.pop(0), "b64")
        address = builder.address(rest[0])
        value = builder.source(rest[1], "u32") if len(rest) > 1 else SINK
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
    raise builder.error(f".{what} is not executed yet")


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
    first, second = destination, Sink()
    if isinstance(destination, PredicatePair):
        first, second = destination.first, destination.second
    places = [builder.result(first, "b32"), builder.result(second, "pred")]
    places += [builder.source(s, "b32") for s in sources]
    builder.step(f"shfl.{instruction.modifiers[1]}", places)


def _vote(builder: Builder, instruction: Instruction) -> None:
    destination, source, mask = instruction.operands
    mode = instruction.modifiers[1]
    result = builder.result(destination, "b32" if mode == "ballot" else "pred")
    places = [result, builder.source(source, "pred"), builder.source(mask, "b32")]
    builder.step(f"vote.{mode}", places)


def _redux(builder: Builder, instruction: Instruction) -> None:
    type_ = _type(instruction)
    destination, source, mask = instruction.operands
    places = [builder.result(destination, type_), builder.source(source, type_)]
    name = f"redux.{instruction.modifiers[1]}.{type_}"
    builder.step(name, [*places, builder.source(mask, "b32")])


def _elect(builder: Builder, instruction: Instruction) -> None:
    destination, mask = instruction.operands
    assert isinstance(destination, PredicatePair)
    places = [builder.result(destination.first, "b32"), builder.result(destination.second, "pred")]
    builder.step("elect", [*places, builder.source(mask, "b32")])


def _activemask(builder: Builder, instruction: Instruction) -> None:
    builder.step("activemask", [builder.result(instruction.operands[0], "b32")])


FAMILIES: dict[str, Decode] = {
    **dict.fromkeys(("add", "sub", "div", "rem", "min", "max", "abs", "neg"), _arithmetic),
    **dict.fromkeys(("fma", "rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos"), _arithmetic),
    **dict.fromkeys(("tanh", "copysign"), _arithmetic),
    **dict.fromkeys(("mul", "mad"), _multiply),
    **dict.fromkeys(("and", "or", "xor", "not", "brev"), _bitwise),
    **dict.fromkeys(("shl", "shr"), _shift),
    **dict.fromkeys(("prmt", "lop3", "shf"), _words),
    **dict.fromkeys(("bfe", "bfi"), _field),
    **dict.fromkeys(("popc", "clz", "bfind"), _count),
    "setp": _setp,
    "selp": _selp,
    "mov": _mov,
    "cvt": _cvt,
    "cvta": _cvta,
    "ld": _access,
    "st": _access,
    "atom": _atom,
    "red": _atom,
    "bra": _bra,
    "ret": _ret,
    "exit": _ret,
    "trap": _trap,
    "bar": _barrier,
    "barrier": _barrier,
    "mbarrier": _mbarrier,
    "mapa": _mapa,
    "shfl": _shfl,
    "vote": _vote,
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
