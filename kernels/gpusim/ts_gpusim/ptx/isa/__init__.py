# SPDX-License-Identifier: MIT
"""The instructions that the machine executes, each with its section of the PTX ISA 9.0.

`check` refuses what the tables do not have, so that no modifier is ever ignored by accident.
"""

from __future__ import annotations

from dataclasses import dataclass

from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.isa import (
    async_copy,
    control,
    conversion,
    floating,
    integer,
    matrix,
    mbarrier,
    movement,
    selection,
    synchronisation,
    tcgen05,
)
from ts_gpusim.ptx.isa.table import Form, Section, kinds, read_table
from ts_gpusim.ptx.syntax import Instruction

__all__ = ["FORMS", "Form", "Match", "Section", "check", "match"]

FORMS: dict[str, list[Form]] = {}  # by opcode
for _family in (
    integer,
    floating,
    selection,
    movement,
    conversion,
    async_copy,
    control,
    synchronisation,
    mbarrier,
    matrix,
    tcgen05,
):
    for _form in read_table(_family.TABLE):
        FORMS.setdefault(_form.opcode, []).append(_form)

_LONGEST_QUOTE = 120


@dataclass(frozen=True)
class Match:
    """The form of an instruction, and for each `.name` in its syntax what the instruction has."""

    form: Form
    fields: dict[str, str]

    @property
    def section(self) -> Section:
        return self.form.section


_matches: dict[tuple[str, tuple[str, ...], str], Match] = {}


def check(instruction: Instruction) -> None:
    """Raises PtxError, naming line, text and section, for what the tables do not allow."""
    match(instruction)


def match(instruction: Instruction) -> Match:
    """The form that the instruction has. Raises PtxError as `check` does."""
    key = (instruction.opcode, instruction.modifiers, kinds(instruction.operands))
    found = _matches.get(key)
    if found is None:
        found = _matches[key] = _find(instruction, key[2])
    return found


def _find(instruction: Instruction, operand_kinds: str) -> Match:
    forms = FORMS.get(instruction.opcode)
    if forms is None:
        raise _error(
            instruction,
            f"`{instruction.opcode}` is no instruction that is supported "
            "(PTX ISA 9.7, Instructions); write it with one that is",
        )
    same_name = []
    for form in forms:
        fields = form.match_modifiers(instruction.modifiers)
        if fields is None:
            continue
        if form.match_operands(operand_kinds):
            return Match(form, fields)
        same_name.append(form)
    if same_name:
        allowed = " or ".join(f"`{form.operands or 'none'}`" for form in same_name)
        raise _error(
            instruction,
            f"`{instruction.name}` has {len(operand_kinds)} operands that do not fit {allowed} "
            f"({same_name[0].section}); correct them",
        )
    raise _error(instruction, _modifier_message(instruction, _nearest(instruction, forms)))


def _nearest(instruction: Instruction, forms: list[Form]) -> list[Form]:
    """The forms of the sections whose fixed modifiers agree longest with the instruction's."""

    def agreement(form: Form) -> tuple[int, int]:
        common = 0
        for fixed, written in zip(form.head, instruction.modifiers, strict=False):
            if fixed != written:
                break
            common += 1
        strangers = sum(word not in form.vocabulary for word in instruction.modifiers)
        return common - strangers, common

    best = max(forms, key=agreement)
    return [form for form in forms if form.section == best.section]


def _modifier_message(instruction: Instruction, forms: list[Form]) -> str:
    vocabulary = frozenset().union(*(form.vocabulary for form in forms))
    section = forms[0].section
    allowed = ", ".join(f"`{form.syntax}`" for form in forms[:4])
    for word in instruction.modifiers:
        if word not in vocabulary:
            return f"`.{word}` is no modifier of {allowed} ({section}); use one that is"
    return f"the modifiers of `{instruction.name}` do not make {allowed} ({section}); correct them"


def _error(instruction: Instruction, message: str) -> PtxError:
    text = instruction.text
    if len(text) > _LONGEST_QUOTE:
        text = text[:_LONGEST_QUOTE] + "..."
    return PtxError(f"`{text}`: {message}", instruction.line)
