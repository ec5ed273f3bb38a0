# SPDX-License-Identifier: MIT
"""PTX text to tokens, with one regular expression (PTX ISA, chapter 4, Syntax).

A dotted name is one token: `cp.async.bulk.tensor.2d.shared::cluster`, `%tid.x`. A directive or a
modifier that stands apart, `.reg`, is one token with its dot.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right

from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.syntax import FloatImmediate

WORD = "word"
DIRECTIVE = "directive"
INTEGER = "integer"
FLOAT = "float"
STRING = "string"
MARK = "mark"  # one character of punctuation
END = "end"

_TOKEN = re.compile(
    r"""
    (?:\s+|//[^\n]*|/\*.*?\*/)+
  | (?P<word>[A-Za-z_$%][\w$]*(?:(?:\.|::)[\w$]+)*)
  | (?P<mark>[{}()\[\]<>,;:|!@+\-~=*])
  | (?P<float>0[fF][0-9a-fA-F]{8}(?!\w)|0[dD][0-9a-fA-F]{16}(?!\w)
       |\d+\.\d*(?:[eE][+-]?\d+)?(?!\w)|\.\d+(?:[eE][+-]?\d+)?(?!\w)|\d+[eE][+-]?\d+(?!\w))
  | (?P<integer>(?:0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?(?!\w))
  | (?P<directive>\.[A-Za-z_][\w$]*(?:::\w+)*)
  | (?P<string>"[^"\n]*")
  | (?P<bad>.)
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


class Tokens:
    """The tokens of a text and how far they have been read."""

    def __init__(self, text: str) -> None:
        self.source = text
        self.kinds: list[str] = []
        self.texts: list[str] = []
        self.offsets: list[int] = []
        self.position = 0
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        for match in _TOKEN.finditer(text):
            kind = match.lastgroup
            if kind is None:
                continue
            if kind == "bad":
                line = self.line_of(match.start())
                raise PtxError(f"{match.group()!r} begins no PTX token; remove it", line)
            self.kinds.append(kind)
            self.texts.append(match.group())
            self.offsets.append(match.start())
        self.kinds.append(END)
        self.texts.append("")
        self.offsets.append(len(text))

    @property
    def kind(self) -> str:
        return self.kinds[self.position]

    @property
    def text(self) -> str:
        return self.texts[self.position]

    @property
    def line(self) -> int:
        """Of the next token, from 1."""
        return self.line_of(self.offsets[self.position])

    def line_of(self, offset: int) -> int:
        return bisect_right(self._line_ends, offset - 1) + 1

    def take(self) -> str:
        text = self.texts[self.position]
        if self.kinds[self.position] != END:
            self.position += 1
        return text

    def accept(self, text: str) -> bool:
        """Takes the next token if it is this one."""
        if self.texts[self.position] != text:
            return False
        self.position += 1
        return True

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.error(f"`{text}`")

    def expect_kind(self, kind: str, wanted: str) -> str:
        if self.kinds[self.position] != kind:
            raise self.error(wanted)
        return self.take()

    def error(self, wanted: str) -> PtxError:
        found = f"`{self.text}`" if self.kind != END else "the end of the text"
        return PtxError(f"found {found} where {wanted} must stand", self.line)

    def integer(self) -> int:
        """A constant with any number of signs before it, as `-64` or `+-16`."""
        sign = 1
        while self.texts[self.position] in ("-", "+"):
            sign = -sign if self.take() == "-" else sign
        line = self.line
        return sign * integer_value(self.expect_kind(INTEGER, "an integer constant"), line)


def integer_value(text: str, line: int) -> int:
    """Decimal, `0x`, `0b` or octal `0`, with an optional `U` (PTX ISA 4.5.1)."""
    digits = text.removesuffix("U")
    base = 10
    if digits[:2] in ("0x", "0X"):
        digits, base = digits[2:], 16
    elif digits[:2] in ("0b", "0B"):
        digits, base = digits[2:], 2
    elif len(digits) > 1 and digits[0] == "0":
        digits, base = digits[1:], 8
    significant = digits.lstrip("0") or "0"
    try:
        value = int(significant, base) if len(significant) <= 64 else 1 << 64
    except ValueError:
        raise PtxError(f"`{text}` is octal, but has a digit above 7; drop its 0", line) from None
    if value >> 64:
        raise PtxError(f"the constant {text[:40]} is above the limit of 64 bits", line)
    return value


def float_value(text: str) -> FloatImmediate:
    """`0f` and `0d` give the bits; a decimal literal is a double (PTX ISA 4.5.2)."""
    if text[:2] in ("0f", "0F"):
        return FloatImmediate(int(text[2:], 16), 32)
    if text[:2] in ("0d", "0D"):
        return FloatImmediate(int(text[2:], 16), 64)
    return FloatImmediate(int.from_bytes(struct.pack("<d", float(text)), "little"), 64)
