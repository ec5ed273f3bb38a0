# SPDX-License-Identifier: MIT
"""What a compiled kernel occupies: read from its cubin, an ELF file (64 bit, little-endian).

The section `.nv.info` is a list of attributes. Each begins with its format and its name, a byte
each, and the size of what follows (format 4) or a value of two bytes (formats 1 to 3). Those read
here name a kernel's symbol and a number: registers of a thread, bytes of its stack. Registers that
ptxas spills are in the stack.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_FRAME_SIZE, _REGISTERS = 0x11, 0x2F
_SIZED = 4
_SECTION, _SYMBOL = "<IIQQQQIIQQ", "<IBBHQQ"
_SYMBOL_TABLE = 2  # type of section


@dataclass(frozen=True)
class Resources:
    registers: int  # of a thread
    stack_bytes: int  # of a thread: what was spilled, and arrays indexed at run time


def resources(cubin: bytes) -> dict[str, Resources]:
    """By kernel. ValueError: no cubin."""
    if cubin[:5] != b"\x7fELF\x02":
        raise ValueError(f"a cubin begins with the ELF magic and class 2, not with {cubin[:5]!r}")
    sections = list(_sections(cubin))
    names: list[str] = []
    for _, kind, data, link in sections:
        if kind == _SYMBOL_TABLE:
            strings = sections[link][2]
            names = [_string(strings, symbol[0]) for symbol in struct.iter_unpack(_SYMBOL, data)]
    registers: dict[str, int] = {}
    stack: dict[str, int] = {}
    for name, _, data, _ in sections:
        if name == ".nv.info":
            for attribute, payload in _attributes(data):
                if attribute in (_FRAME_SIZE, _REGISTERS):
                    symbol, number = struct.unpack("<II", payload)
                    (registers if attribute == _REGISTERS else stack)[names[symbol]] = number
    return {kernel: Resources(count, stack.get(kernel, 0)) for kernel, count in registers.items()}


def _sections(elf: bytes) -> Iterator[tuple[str, int, bytes, int]]:
    """Name, type, contents and link of each."""
    (at,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, named_by = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from(_SECTION, elf, at + i * size) for i in range(count)]
    names = elf[headers[named_by][4] :]
    for name, kind, _, _, offset, length, link, *_ in headers:
        yield _string(names, name), kind, elf[offset : offset + length], link


def _string(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode()


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Those of format 4: name and contents."""
    at = 0
    while at < len(data):
        form, attribute, size = struct.unpack_from("<BBH", data, at)
        at += 4
        if form == _SIZED:
            yield attribute, data[at : at + size]
            at += size
