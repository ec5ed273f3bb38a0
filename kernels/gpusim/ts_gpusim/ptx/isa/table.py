# SPDX-License-Identifier: MIT
"""The notation in which the tables of this package write down what PTX allows.

It is the notation of the ISA's own syntax sections. A table is a text; a section of it reads

    9.7.1.1 Integer Arithmetic Instructions: add
    .type = u16 u32 u64 s16 s32 s64
    add.type        d, a, b
    add{.sat}.s32   d, a, b{, c}

A line `.name = ...` lists the modifiers that may stand where a form says `.name`; it holds to the
end of its section, or of the table where it stands before the first section. A word of such a list
may hold several modifiers, `async.global`. `{ }` is optional. Of the operands, `[a]` is an address,
`d|p` a pair, `d{|p}` either, `(a)` a list in parentheses, `target` a label, `_` a result that is
not wanted, and any other name a register, constant, variable, vector or `_`.

The assembler lets modifiers change places, and compilers make use of it
(`cp.async.bulk.tensor...L2::cache_hint.cta_group::2`), so a form takes them in another order too,
save where the order has a meaning: the fixed ones at the front, types, state spaces and layouts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from ts_gpusim.ptx.syntax import Address, Arguments, Label, Operand, PredicatePair, Sink

_SECTION = re.compile(r"(9(?:\.\d+)+) (.+)")
_DEFINITION = re.compile(r"\.(\w+) = (.+)")
_PART = re.compile(r"(\{?)((?:\.[\w:]+)+)(\}?)")
_ORDER_HAS_MEANING = re.compile(
    r"pred|[busf]\d+(?:x\d)?|b?f16(?:x2)?|tf32|u?e\d+m\d+(?:x\d)?"
    r"|const|global|local|param|shared(?:::\w+)?|row|col"
)
_OPERAND = re.compile(r"\[[\w-]+\]|\(\w+\)|[\w-]+\|[\w-]+|[\w-]+\{\|[\w-]+\}|[\w-]+")


@dataclass(frozen=True)
class Section:
    """Of the PTX ISA 9.0."""

    number: str
    title: str

    def __str__(self) -> str:
        return f"PTX ISA {self.number}, {self.title}"


@dataclass(frozen=True)
class Form:
    """One line of an instruction's syntax."""

    section: Section
    syntax: str  # `add{.sat}.s32`
    operands: str  # `d, a, b`
    choices: dict[str, tuple[str, ...]]  # of each `.name` in the syntax

    @property
    def opcode(self) -> str:
        return re.split(r"[.{]", self.syntax, maxsplit=1)[0]

    @cached_property
    def head(self) -> tuple[str, ...]:
        """The fixed modifiers at the front: what tells `cp.async.bulk` from `cp.async`."""
        head: list[str] = []
        for optional, names, _ in _PART.findall(self.syntax):
            for name in names[1:].split("."):
                if optional or name in self.choices:
                    return tuple(head)
                head.append(name)
        return tuple(head)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """Every modifier that it allows somewhere."""
        words = {word for words in self.choices.values() for word in words}
        words.update(re.findall(r"\.([\w:]+)", self.syntax))
        return frozenset(part for word in words for part in word.split("."))

    def match_modifiers(self, modifiers: tuple[str, ...]) -> dict[str, str] | None:
        """What stands for each `.name`, or None where the modifiers are not of this form."""
        match = self._modifier_pattern.fullmatch("".join(f".{name}" for name in modifiers))
        if match is None:
            modifiers = self._in_order(modifiers)
            match = self._modifier_pattern.fullmatch("".join(f".{name}" for name in modifiers))
        if match is None:
            return None
        return {name: text[1:] for name, text in match.groupdict().items() if text is not None}

    def match_operands(self, operands: str) -> bool:
        return self._operand_pattern.fullmatch(operands) is not None

    @cached_property
    def _modifier_pattern(self) -> re.Pattern[str]:
        pattern = ""
        for optional, names, _ in _PART.findall(self.syntax):
            part = ""
            for name in names[1:].split("."):
                if name in self.choices:
                    words = sorted(self.choices[name], key=len, reverse=True)
                    part += f"(?P<{name}>{'|'.join(re.escape(f'.{word}') for word in words)})"
                else:
                    part += re.escape(f".{name}")
                part += r"(?![\w:])"
            pattern += f"(?:{part})?" if optional else part
        return re.compile(pattern)

    @cached_property
    def _operand_pattern(self) -> re.Pattern[str]:
        pattern = _OPERAND.sub(lambda match: _kind_pattern(match.group()), self.operands)
        pattern = pattern.replace(" ", "").replace(",", "")
        return re.compile(pattern.replace("{", "(?:").replace("}", ")?"))

    def _in_order(self, modifiers: tuple[str, ...]) -> tuple[str, ...]:
        """The modifiers as the syntax has them, if that changes no meaning; else as they are."""
        head = len(self.head)
        rest = sorted(modifiers[head:], key=lambda word: self._places.get(word, 0))
        ordered = [word for word in modifiers if _ORDER_HAS_MEANING.fullmatch(word)]
        if ordered != [word for word in modifiers[:head] + tuple(rest) if word in set(ordered)]:
            return modifiers
        return modifiers[:head] + tuple(rest)

    @cached_property
    def _places(self) -> dict[str, int]:
        """Of each modifier, the first place in the syntax where it may stand."""
        places: dict[str, int] = {}
        for place, name in enumerate(re.findall(r"\.([\w:]+)", self.syntax)):
            for word in self.choices.get(name, (name,)):
                places.setdefault(word, place)
        return places


def _kind_pattern(operand: str) -> str:
    if operand.startswith("["):
        return "a"
    if operand.startswith("("):
        return "g"
    if "{|" in operand:
        return "[vsp]"
    if "|" in operand:
        return "p"
    return {"target": "l", "_": "s"}.get(operand, "[vs]")


def kinds(operands: tuple[Operand, ...]) -> str:
    """A letter for each, as the operand patterns have them."""
    letters = ""
    for operand in operands:
        if isinstance(operand, Address):
            letters += "a"
        elif isinstance(operand, PredicatePair):
            letters += "p"
        elif isinstance(operand, Arguments):
            letters += "g"
        elif isinstance(operand, Label):
            letters += "l"
        elif isinstance(operand, Sink):
            letters += "s"
        else:
            letters += "v"
    return letters


def read_table(text: str) -> list[Form]:
    """The forms of a table, in its order."""
    everywhere: dict[str, tuple[str, ...]] = {}
    here = everywhere
    section: Section | None = None
    forms = []
    for line in text.splitlines():
        line = " ".join(line.split())
        if not line:
            continue
        if match := _SECTION.fullmatch(line):
            section = Section(*match.groups())
            here = dict(everywhere)
        elif match := _DEFINITION.fullmatch(line):
            here[match.group(1)] = tuple(match.group(2).split())
        else:
            assert section is not None, line
            syntax, _, operands = line.partition(" ")
            names = set(re.findall(r"\.([\w:]+)", syntax))
            choices = {name: words for name, words in here.items() if name in names}
            forms.append(Form(section, syntax, operands.strip(), choices))
    return forms
