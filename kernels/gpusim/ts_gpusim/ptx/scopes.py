# SPDX-License-Identifier: MIT
"""Names of a kernel and of the `{ }` scopes inside it (PTX ISA 9.7.12.1).

Inline assembly declares the same `p` or `LAB_WAIT` in scope after scope. Here each gets a name of
its own: the outermost keeps the one written, an inner one becomes `p$1`, `p$2` and so on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.syntax import Register, Symbol, Vector

_VECTOR_ELEMENTS = "xyzw"


@dataclass
class _Scope:
    number: int  # of the scopes of a kernel, in the order in which they open
    names: dict[str, Register | Symbol | Vector] = field(default_factory=dict)
    ranges: dict[str, tuple[int, str]] = field(default_factory=dict)  # `%r<9>`: prefix, count, type


class Scopes:
    """`module_symbols`: what every kernel sees. `labels[n]`: of scope n, written name to own name,
    to be set before the instructions are read because a branch may jump forward."""

    def __init__(self, module_symbols: set[str]) -> None:
        self._module_symbols = module_symbols
        self.labels: list[dict[str, str]] = []
        self._open: list[_Scope] = []
        self._opened = 0
        self._unique = UniqueNames()
        self.registers: dict[str, Register] = {}

    def add_module_symbol(self, name: str) -> None:
        self._module_symbols.add(name)

    def enter(self) -> None:
        self._open.append(_Scope(self._opened))
        self._opened += 1

    def leave(self) -> None:
        self._open.pop()

    def declare_range(self, prefix: str, count: int, type_: str, line: int) -> None:
        """`.reg .b32 %r<100>`: 100 registers, made when an instruction names them."""
        scope = self._open[-1]
        if prefix in scope.ranges:
            raise PtxError(f"registers {prefix}<n> are declared twice; keep one .reg", line)
        scope.ranges[prefix] = (count, type_)

    def declare_register(self, name: str, type_: str, lanes: int, line: int) -> None:
        """One register, or for `.v2`/`.v4` one for each of `name.x`, `name.y`, ..."""
        if lanes == 1:
            self._add(name, self._new_register(name, type_, self._open[-1]), line)
            return
        elements = []
        for letter in _VECTOR_ELEMENTS[:lanes]:
            register = self._new_register(f"{name}.{letter}", type_, self._open[-1])
            self._add(f"{name}.{letter}", register, line)
            elements.append(register)
        self._add(name, Vector(tuple(elements)), line)

    def declare_symbol(self, name: str, line: int) -> str:
        """A variable or parameter; gives the name by which the kernel knows it."""
        own = self._unique.name(name, inner=len(self._open) > 1)
        self._add(name, Symbol(own), line)
        return own

    def find(self, name: str) -> Register | Symbol | Vector | None:
        """A register, the address of a variable, or the registers of a vector."""
        for scope in reversed(self._open):
            found = scope.names.get(name)
            if found is not None:
                return found
            if scope.ranges:
                found = self._of_range(scope, name)
                if found is not None:
                    return found
        return Symbol(name) if name in self._module_symbols else None

    def find_label(self, name: str) -> str | None:
        for scope in reversed(self._open):
            own = self.labels[scope.number].get(name) if scope.number < len(self.labels) else None
            if own is not None:
                return own
        return None

    def _of_range(self, scope: _Scope, name: str) -> Register | None:
        for cut in range(len(name.rstrip("0123456789")), len(name)):
            number = name[cut:]
            if len(number) > 10 or (number[0] == "0" and len(number) > 1):
                continue
            count, type_ = scope.ranges.get(name[:cut], (0, ""))
            if int(number) < count:
                register = self._new_register(name, type_, scope)
                scope.names[name] = register
                return register
        return None

    def _new_register(self, name: str, type_: str, scope: _Scope) -> Register:
        register = Register(self._unique.name(name, inner=scope.number > 0), type_)
        self.registers[register.name] = register
        return register

    def _add(self, name: str, what: Register | Symbol | Vector, line: int) -> None:
        names = self._open[-1].names
        if name in names:
            raise PtxError(f"`{name}` is declared twice in one scope; rename one", line)
        names[name] = what


class UniqueNames:
    """Gives each name once: as written, or for an inner scope as the next free `name$n`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._tried: dict[str, int] = {}

    def name(self, written: str, inner: bool) -> str:
        own = written
        while inner or own in self._taken:
            number = self._tried.get(written, 0) + 1
            self._tried[written] = number
            own, inner = f"{written}${number}", False
        self._taken.add(own)
        return own
