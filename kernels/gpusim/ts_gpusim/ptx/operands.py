# SPDX-License-Identifier: MIT
"""Operands of an instruction, from tokens (PTX ISA, chapter 6, Instruction Operands)."""

from __future__ import annotations

import re

from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.lexer import FLOAT, INTEGER, MARK, WORD, Tokens, float_value
from ts_gpusim.ptx.scopes import Scopes
from ts_gpusim.ptx.syntax import (
    Address,
    Arguments,
    FloatImmediate,
    Immediate,
    Label,
    NegatedRegister,
    Operand,
    PredicatePair,
    Register,
    Sink,
    SpecialRegister,
    Symbol,
    Vector,
)

WARP_SIZE = Immediate(32)  # the constant WARP_SZ, PTX ISA 4.4

# PTX ISA, chapter 10, Special Registers.
_SPECIAL = re.compile(
    r"""%(?:
    (?:tid|ntid|ctaid|nctaid|clusterid|nclusterid|cluster_ctaid|cluster_nctaid)\.[xyz]
  | laneid | warpid | nwarpid | smid | nsmid | gridid
  | is_explicit_cluster | cluster_ctarank | cluster_nctarank
  | lanemask_(?:eq|le|lt|ge|gt)
  | clock | clock_hi | clock64 | globaltimer | globaltimer_lo | globaltimer_hi
  | pm[0-7] | pm[0-7]_64 | envreg(?:[12]?[0-9]|3[01])
  | reserved_smem_offset_(?:begin|end|cap|[01])
  | total_smem_size | aggr_smem_size | dynamic_smem_size | current_graph_exec
    )""",
    re.VERBOSE,
)
_SINK = Sink()


def read_operand(tokens: Tokens, scopes: Scopes) -> Operand:
    """One operand; the tokens stand after it."""
    kind = tokens.kind
    if kind == WORD:
        return _name(tokens, scopes)
    if kind == INTEGER or tokens.text in ("-", "+", "~"):
        return _number(tokens)
    if kind == FLOAT:
        return float_value(tokens.take())
    if kind == MARK:
        if tokens.accept("["):
            return _address(tokens, scopes)
        if tokens.accept("{"):
            return Vector(_elements(tokens, scopes))
        if tokens.accept("("):
            return _arguments(tokens, scopes)
        if tokens.accept("!"):
            return NegatedRegister(_register(tokens, scopes, "a predicate after `!`"))
    raise tokens.error("an operand")


def _arguments(tokens: Tokens, scopes: Scopes) -> Arguments:
    """After `(`: elements up to and with `)`."""
    elements: list[Operand] = []
    while not tokens.accept(")"):
        if elements:
            tokens.expect(",")
        elements.append(read_operand(tokens, scopes))
    return Arguments(tuple(elements))


def _find(tokens: Tokens, scopes: Scopes) -> Operand:
    """Takes a name and gives what it stands for."""
    name = tokens.take()
    found = scopes.find(name)
    if found is not None:
        return found
    if _SPECIAL.fullmatch(name) is not None:
        return SpecialRegister(name)
    if name == "_":
        return _SINK
    if name == "WARP_SZ":
        return WARP_SIZE
    label = scopes.find_label(name)
    if label is not None:
        return Label(label)
    raise PtxError(
        f"`{name}` is no register, variable, label or special register; declare it",
        tokens.line_of(tokens.offsets[tokens.position - 1]),
    )


def _name(tokens: Tokens, scopes: Scopes) -> Operand:
    first = _find(tokens, scopes)
    following = tokens.text
    if following == "|":
        tokens.take()
        if tokens.kind != WORD:
            raise tokens.error("a predicate")
        second = _find(tokens, scopes)
        if not isinstance(first, Register | Sink) or not isinstance(second, Register | Sink):
            raise PtxError("`p|q` takes two registers or `_`; name registers", tokens.line)
        return PredicatePair(first, second)
    if following in ("+", "-") and isinstance(first, Symbol):
        return Symbol(first.name, _offset(tokens))
    return first


def _number(tokens: Tokens) -> Immediate | FloatImmediate:
    negative = False
    while tokens.text in ("-", "+"):
        negative ^= tokens.take() == "-"
    if tokens.kind == FLOAT:
        value = float_value(tokens.take())
        return FloatImmediate(value.bits ^ (negative << (value.width - 1)), value.width)
    whole = ~tokens.integer() if tokens.accept("~") else tokens.integer()
    whole = -whole if negative else whole
    while tokens.text in ("+", "-"):
        whole += tokens.integer()
    return Immediate(whole)


def _address(tokens: Tokens, scopes: Scopes) -> Address:
    """After `[`: a base, constant offsets, and for a tensor its coordinates."""
    base: Register | Symbol | Immediate
    if tokens.kind == WORD:
        line = tokens.line
        found = _find(tokens, scopes)
        if not isinstance(found, Register | Symbol):
            raise PtxError("an address takes a register, a variable or a constant", line)
        base = found
    else:
        base = Immediate(tokens.integer())
    offset = _offset(tokens)
    coordinates: tuple[Register | Immediate, ...] = ()
    if tokens.accept(","):
        line = tokens.line
        tokens.expect("{")
        elements = _elements(tokens, scopes)
        coordinates = tuple(e for e in elements if isinstance(e, Register | Immediate))
        if len(coordinates) != len(elements):
            raise PtxError("tensor coordinates are registers or integer constants", line)
    tokens.expect("]")
    return Address(base, offset, coordinates)


def _offset(tokens: Tokens) -> int:
    offset = 0
    while tokens.text in ("+", "-"):
        offset += tokens.integer()
    return offset


def _elements(
    tokens: Tokens, scopes: Scopes
) -> tuple[Register | Immediate | FloatImmediate | Sink, ...]:
    """After `{`: elements up to and with `}`."""
    elements: list[Register | Immediate | FloatImmediate | Sink] = []
    while True:
        line = tokens.line
        element = (_find if tokens.kind == WORD else read_operand)(tokens, scopes)
        if not isinstance(element, Register | Immediate | FloatImmediate | Sink):
            raise PtxError(
                "an element of `{ }` is a register, a constant or `_`; move it to a register",
                line,
            )
        elements.append(element)
        if tokens.accept("}"):
            return tuple(elements)
        tokens.expect(",")


def _register(tokens: Tokens, scopes: Scopes, wanted: str) -> Register:
    if tokens.kind == WORD:
        found = scopes.find(tokens.text)
        if isinstance(found, Register):
            tokens.take()
            return found
    raise tokens.error(wanted)


def read_guard(tokens: Tokens, scopes: Scopes) -> tuple[Register, bool]:
    """After `@`: the predicate and whether `!` stands before it (PTX ISA 9.3)."""
    negated = tokens.accept("!")
    return _register(tokens, scopes, "the predicate of a guard"), negated
