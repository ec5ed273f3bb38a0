# SPDX-License-Identifier: MIT
"""The body of a kernel or function: scopes, declarations, labels and instructions (PTX ISA 4.2)."""

from __future__ import annotations

from ts_gpusim.ptx.declarations import SPACES, read_parameters, read_registers, read_variables
from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.lexer import DIRECTIVE, END, INTEGER, STRING, WORD, Tokens
from ts_gpusim.ptx.operands import read_guard, read_operand
from ts_gpusim.ptx.scopes import Scopes, UniqueNames
from ts_gpusim.ptx.syntax import (
    Body,
    Guard,
    Instruction,
    Module,
    Operand,
    Prototype,
    SourceLocation,
)


def read_body(tokens: Tokens, scopes: Scopes, body: Body, module: Module) -> None:
    """From `{` to its `}`, both taken. Fills the body's instructions, labels and variables."""
    _Reader(tokens, scopes, body, module).read()


class _Reader:
    def __init__(self, tokens: Tokens, scopes: Scopes, body: Body, module: Module) -> None:
        self.tokens = tokens
        self.scopes = scopes
        self.body = body
        self.files = module.files
        self.location: SourceLocation | None = None
        self.locations: dict[tuple[int, int, int], SourceLocation] = {}
        self.guard: Guard | None = None
        scopes.labels = _labels_of_scopes(tokens)

    def read(self) -> None:
        tokens, scopes = self.tokens, self.scopes
        start = tokens.line
        tokens.expect("{")
        depth = 1
        while depth:
            kind, text = tokens.kind, tokens.text
            if kind == WORD:
                if tokens.texts[tokens.position + 1] == ":":
                    self._label()
                else:
                    self._instruction(None, tokens.position)
            elif text == "@":
                self._guarded()
            elif kind == DIRECTIVE:
                self._directive()
            elif tokens.accept("{"):
                scopes.enter()
                depth += 1
            elif tokens.accept("}"):
                depth -= 1
                if depth:
                    scopes.leave()
            elif kind == END:
                raise PtxError(f"`{self.body.name}` has no closing `}}`; add it", start)
            elif not tokens.accept(";"):
                raise tokens.error("an instruction, a label or a directive")
        self.body.registers = scopes.registers

    def _guarded(self) -> None:
        tokens = self.tokens
        start = tokens.position
        tokens.expect("@")
        predicate, negated = read_guard(tokens, self.scopes)
        if tokens.kind != WORD:
            raise tokens.error("an instruction")
        self._instruction(Guard(predicate, negated), start)

    def _instruction(self, guard: Guard | None, start: int) -> None:
        tokens, scopes = self.tokens, self.scopes
        opcode, *modifiers = tokens.take().split(".")
        while tokens.kind == DIRECTIVE:  # a modifier that stands apart
            modifiers += tokens.take()[1:].split(".")
        line = tokens.line_of(tokens.offsets[start])
        operands: list[Operand] = []
        if not tokens.accept(";"):
            while True:
                operands.append(read_operand(tokens, scopes))
                if tokens.accept(";"):
                    break
                if not tokens.accept(","):
                    raise tokens.error("`,` or `;`")
        end = tokens.offsets[tokens.position - 1] + 1
        text = " ".join(tokens.source[tokens.offsets[start] : end].split())
        self.body.instructions.append(
            Instruction(opcode, tuple(modifiers), tuple(operands), guard, line, self.location, text)
        )

    def _label(self) -> None:
        tokens = self.tokens
        line, written = tokens.line, tokens.take()
        name = self.scopes.find_label(written)
        tokens.expect(":")
        if name is None:  # _labels_of_scopes, too, takes a label only where a statement may begin
            raise PtxError(f"label `{written}` stands within a statement; end that with `;`", line)
        if tokens.text == ".branchtargets":
            self._branch_targets(name)
        elif tokens.text == ".callprototype":
            self._prototype(name)
        else:
            self.body.labels[name] = len(self.body.instructions)

    def _branch_targets(self, name: str) -> None:
        """`list: .branchtargets L0, L1;` for brx.idx (PTX ISA 11.3.2)."""
        tokens = self.tokens
        tokens.take()
        targets = []
        while True:
            line = tokens.line
            written = tokens.expect_kind(WORD, "a label")
            label = self.scopes.find_label(written)
            if label is None:
                raise PtxError(f"`{written}` is no label of this kernel; add it", line)
            targets.append(label)
            if tokens.accept(";"):
                break
            tokens.expect(",")
        self.body.branch_targets[name] = tuple(targets)

    def _prototype(self, name: str) -> None:
        """`name: .callprototype (.param .b32 _) _ (.param .b64 _);` (PTX ISA 11.3.3)."""
        tokens = self.tokens
        tokens.take()
        returns = read_parameters(tokens, None)
        tokens.expect("_")
        parameters = read_parameters(tokens, None)
        tokens.accept(".noreturn")
        tokens.expect(";")
        self.body.prototypes[name] = Prototype(tuple(parameters), tuple(returns))

    def _directive(self) -> None:
        tokens = self.tokens
        line = tokens.line
        if tokens.accept(".loc"):
            self._location()
        elif tokens.accept(".reg"):
            read_registers(tokens, self.scopes)
        elif tokens.text in SPACES or tokens.text == ".param":
            self._variables(extern=False)
        elif tokens.accept(".extern"):
            self._variables(extern=True)
        elif tokens.accept(".pragma"):
            tokens.expect_kind(STRING, "the text of a pragma")
            tokens.expect(";")
        else:
            raise PtxError(
                f"`{tokens.text}` is no directive of a kernel's body that is supported "
                "(PTX ISA chapter 11); remove it",
                line,
            )

    def _variables(self, extern: bool) -> None:
        line = self.tokens.line
        if self.tokens.text not in (*SPACES, ".param"):
            raise self.tokens.error("`.shared`")
        for variable in read_variables(self.tokens, self.scopes):
            if variable.size == 0 and not (extern and variable.space == "shared"):
                raise PtxError(f"`{variable.name}` has no size; give its array one", line)
            self.body.variables[variable.name] = variable

    def _location(self) -> None:
        """`.loc 1 23 5, function_name f, inlined_at 1 12 3` (PTX ISA 11.5.4)."""
        place = self._place()
        caller: SourceLocation | None = None
        tokens = self.tokens
        while tokens.accept(","):
            if tokens.accept("function_name"):
                if tokens.kind not in (WORD, DIRECTIVE):
                    raise tokens.error("a label of a debug section")
                tokens.take()
                if tokens.accept("+"):
                    tokens.integer()
            elif tokens.accept("inlined_at"):
                at = self._place()
                caller = self.locations.get(at) or self._source_location(at, None)
            else:
                raise tokens.error("`function_name` or `inlined_at`")
        self.location = self._source_location(place, caller)
        self.locations[place] = self.location

    def _place(self) -> tuple[int, int, int]:
        tokens = self.tokens
        if tokens.kind != INTEGER:
            raise tokens.error("the number of a file")
        return tokens.integer(), tokens.integer(), tokens.integer()

    def _source_location(
        self, place: tuple[int, int, int], caller: SourceLocation | None
    ) -> SourceLocation:
        file, line, column = place
        return SourceLocation(self.files.get(file, f"<file {file}>"), line, column, caller)


def _labels_of_scopes(tokens: Tokens) -> list[dict[str, str]]:
    """For each scope, in the order of their `{`: labels as written, to names of their own.

    A `{` opens a scope where a statement may begin; elsewhere it is a vector's.
    """
    texts, kinds = tokens.texts, tokens.kinds
    unique = UniqueNames()
    scopes: list[dict[str, str]] = []
    is_open: list[int] = []
    position = tokens.position
    starts_statement = True
    while kinds[position] != END:
        text = texts[position]
        if text == ";":
            starts_statement = True
        elif not starts_statement:
            if text == "{":
                position = _after_braces(tokens, position)
                continue
        elif text == "{":
            is_open.append(len(scopes))
            scopes.append({})
        elif text == "}":
            is_open.pop()
            if not is_open:
                break
        elif text == ".loc":
            position = _after_location(tokens, position)
            continue
        elif kinds[position] == WORD and texts[position + 1] == ":":
            labels = scopes[is_open[-1]]
            if text in labels:
                raise PtxError(
                    f"label `{text}` stands twice in one scope; rename one",
                    tokens.line_of(tokens.offsets[position]),
                )
            labels[text] = unique.name(text, inner=len(is_open) > 1)
            position += 1
        else:
            starts_statement = False
        position += 1
    return scopes


def _after_braces(tokens: Tokens, position: int) -> int:
    depth = 0
    while tokens.kinds[position] != END:
        text = tokens.texts[position]
        depth += (text == "{") - (text == "}")
        position += 1
        if depth == 0:
            break
    return position


def _after_location(tokens: Tokens, position: int) -> int:
    """A `.loc` ends without `;`."""
    position += 1
    while tokens.kinds[position] == INTEGER or tokens.texts[position] in (",", "+"):
        position += 2 if tokens.texts[position] == "," else 1
        if tokens.texts[position - 1] == "function_name":
            position += 1
    return min(position, len(tokens.kinds) - 1)
