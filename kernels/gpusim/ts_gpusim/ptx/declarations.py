# SPDX-License-Identifier: MIT
"""Declarations of parameters, variables and registers (PTX ISA, chapter 5)."""

from __future__ import annotations

import struct

from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.lexer import DIRECTIVE, FLOAT, INTEGER, WORD, Tokens, float_value
from ts_gpusim.ptx.scopes import Scopes
from ts_gpusim.ptx.syntax import Parameter, Symbol, Variable

SPACES = {".shared": "shared", ".global": "global", ".const": "const", ".local": "local"}

# Bytes of each fundamental type, PTX ISA 5.2.1 and 5.2.3.
TYPE_SIZES = {
    "b8": 1, "b16": 2, "b32": 4, "b64": 8, "b128": 16,
    "u8": 1, "u16": 2, "u32": 4, "u64": 8,
    "s8": 1, "s16": 2, "s32": 4, "s64": 8,
    "f16": 2, "f16x2": 4, "bf16": 2, "bf16x2": 4, "f32": 4, "f64": 8,
}  # fmt: skip
_VECTOR_LANES = {".v2": 2, ".v4": 4, ".v8": 8}
_POINTER_SPACES = (".ptr", ".global", ".shared", ".const", ".local", ".param")
_MOST_BYTES = 1 << 40


def read_parameters(tokens: Tokens, scopes: Scopes | None) -> list[Parameter]:
    """`(.param .u64 .ptr .global .align 16 a, .param .align 64 .b8 b[128])`, or nothing.
    `scopes`: None where the names mean nothing, in a prototype."""
    parameters: list[Parameter] = []
    if not tokens.accept("(") or tokens.accept(")"):
        return parameters
    end = 0
    while True:
        tokens.expect(".param")
        type_, align, lanes = _type(tokens)
        line = tokens.line
        name = tokens.expect_kind(WORD, "a parameter's name")
        if scopes is not None:
            name = scopes.declare_symbol(name, line)
        size = TYPE_SIZES[type_] * lanes * _elements(tokens, unsized=1)
        offset = -(-end // align) * align
        parameters.append(Parameter(name, type_, size, align, offset))
        end = offset + size
        if tokens.accept(")"):
            return parameters
        tokens.expect(",")


def read_variables(tokens: Tokens, scopes: Scopes | None) -> list[Variable]:
    """`.shared .align 16 .b8 a[64], b[8];` from its space on. `scopes`: None in a module."""
    space = tokens.take()[1:]
    type_, align, lanes = _type(tokens)
    variables = []
    while True:
        line = tokens.line
        written = tokens.expect_kind(WORD, "a variable's name")
        name = written if scopes is None else scopes.declare_symbol(written, line)
        count = _elements(tokens, unsized=0)
        initial: bytes | None = None
        addresses: tuple[tuple[int, Symbol], ...] = ()
        if tokens.accept("="):
            initial, addresses = _initialiser(tokens, type_)
            count = count or len(initial) // TYPE_SIZES[type_]
        size = TYPE_SIZES[type_] * lanes * count
        if initial is not None and len(initial) > size:
            raise PtxError(
                f"`{name}` holds {size} bytes, but its initialiser has {len(initial)}; "
                "drop the rest",
                line,
            )
        variables.append(Variable(name, space, size, align, initial, addresses))
        if tokens.accept(";"):
            return variables
        tokens.expect(",")


def read_registers(tokens: Tokens, scopes: Scopes) -> None:
    """After `.reg`: `.b32 %r<100>, a;`, `.v4 .f32 acc;`."""
    lanes = _VECTOR_LANES.get(tokens.text, 1)
    if lanes == 8:
        raise tokens.error("`.v2`, `.v4` or a type")
    if lanes > 1:
        tokens.take()
    type_ = tokens.text[1:]
    if type_ != "pred" and type_ not in TYPE_SIZES:
        raise tokens.error("the type of a register")
    tokens.take()
    while True:
        line = tokens.line
        name = tokens.expect_kind(WORD, "a register's name")
        if tokens.accept("<"):
            count = tokens.integer()
            tokens.expect(">")
            scopes.declare_range(name, count, type_, line)
        else:
            scopes.declare_register(name, type_, lanes, line)
        if tokens.accept(";"):
            return
        tokens.expect(",")


def _type(tokens: Tokens) -> tuple[str, int, int]:
    """Type, alignment in bytes and lanes, of `.align`, `.v4`, a type and `.ptr`, in any order."""
    type_, lanes, align, of_pointer = "", 1, 0, False
    while tokens.kind == DIRECTIVE:
        text = tokens.text
        if text == ".align":
            tokens.take()
            line = tokens.line
            value = tokens.integer()
            if not 0 < value <= 1 << 20 or value & (value - 1):
                raise PtxError(f".align {value} is no power of two up to 2^20; correct it", line)
            if not of_pointer:  # after .ptr it says how what it points at is aligned
                align = value
        elif text in _VECTOR_LANES:
            lanes = _VECTOR_LANES[tokens.take()]
        elif text[1:] in TYPE_SIZES and not type_:
            type_ = tokens.take()[1:]
        elif text in _POINTER_SPACES and type_:
            of_pointer = True
            tokens.take()
        else:
            raise tokens.error("`.align`, a vector size or a type that memory can hold")
    if not type_:
        raise tokens.error("a type")
    return type_, align or TYPE_SIZES[type_] * lanes, lanes


def _elements(tokens: Tokens, unsized: int) -> int:
    """Of `name`, 1; of `name[4][8]`, 32; of `name[]`, `unsized`."""
    count = 1
    while tokens.accept("["):
        if tokens.accept("]"):
            count = unsized
            continue
        line = tokens.line
        count *= tokens.integer()
        tokens.expect("]")
        if not 0 <= count < _MOST_BYTES:
            raise PtxError(f"an array of {count} elements is above the limit of 2^40", line)
    return count


def _initialiser(tokens: Tokens, type_: str) -> tuple[bytes, tuple[tuple[int, Symbol], ...]]:
    """After `=`: a constant or nested `{ }` of constants, in memory order, and where among them
    the addresses stand of which symbols (PTX ISA 5.4.4)."""
    size = TYPE_SIZES[type_]
    data = bytearray()
    addresses = []
    depth = 0
    while True:
        if tokens.accept("{"):
            depth += 1
            continue
        if tokens.kind == WORD:
            addresses.append((len(data), _address(tokens, size)))
            data += bytes(size)
        else:
            data += _constant(tokens, type_, size)
        while depth and tokens.accept("}"):
            depth -= 1
        if depth == 0:
            return bytes(data), tuple(addresses)
        tokens.expect(",")


def _address(tokens: Tokens, size: int) -> Symbol:
    """`name`, `name+4`, `generic(name)+4`: of a variable or a function."""
    line = tokens.line
    if size != 8:
        raise PtxError(f"an address has 8 bytes and does not fit {size}; widen the type", line)
    name = tokens.take()
    if name == "generic" and tokens.accept("("):
        name = tokens.expect_kind(WORD, "a variable")
        tokens.expect(")")
    offset = 0
    while tokens.text in ("+", "-"):
        offset += tokens.integer()
    return Symbol(name, offset)


def _constant(tokens: Tokens, type_: str, size: int) -> bytes:
    line = tokens.line
    negative = False
    while tokens.text in ("-", "+"):
        negative ^= tokens.take() == "-"
    if tokens.kind == FLOAT:
        literal = float_value(tokens.take())
        bits = literal.bits ^ (negative << (literal.width - 1))
        if literal.width == size * 8:
            return bits.to_bytes(size, "little")
        if type_ == "f32":
            (value,) = struct.unpack("<d", bits.to_bytes(8, "little"))
            try:
                return struct.pack("<f", value)
            except OverflowError:
                pass
        raise PtxError(f"a {literal.width}-bit float does not fit .{type_}; match the type", line)
    if tokens.kind != INTEGER:
        raise tokens.error("a constant")
    value_int = -tokens.integer() if negative else tokens.integer()
    if type_ in ("f32", "f64"):
        return struct.pack("<f" if type_ == "f32" else "<d", value_int)
    return (value_int & ((1 << size * 8) - 1)).to_bytes(size, "little")
