# SPDX-License-Identifier: MIT
"""Which warps of a kernel execute the same code, and what their author calls it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ts_gpusim.ptx.syntax import Instruction, SourceLocation

# Warps of one role have most of their executed instructions in common; another role's loop takes
# most of a warp's. A warp that also initialises barriers stays with its likes.
_ALIKE = 0.7


def group_warps(executed: Sequence[Sequence[int]]) -> list[list[int]]:
    """`executed[warp][instruction]`: how often. Warp numbers, by role.

    Two warps are alike if the sum over instructions of the smaller of their counts is at least 0.7
    of the sum of the larger ones. A warp joins the first role whose first warp it is like.
    """
    counts = np.array(executed, dtype=np.int64)
    groups: list[list[int]] = []
    for warp, own in enumerate(counts):
        for group in groups:
            first = counts[group[0]]
            common = np.minimum(own, first).sum()
            if common >= _ALIKE * np.maximum(own, first).sum():
                group.append(warp)
                break
        else:
            groups.append([warp])
    return groups


def name_roles(
    groups: Sequence[Sequence[int]],
    executed: Sequence[Sequence[int]],
    instructions: Sequence[Instruction | None],
) -> list[str]:
    """Warp numbers, and the function in which a role executes most of what no other role does (or,
    if there is nothing of that kind, most of all)."""
    counts = np.array(executed, dtype=np.int64)
    by_role = np.array([counts[list(group)].sum(axis=0) for group in groups])
    names = []
    for number, group in enumerate(groups):
        own = by_role[number]
        others = by_role.sum(axis=0) - own
        only = np.where(others == 0, own, 0)
        function = _function(only if only.any() else own, instructions)
        names.append(f"{_warps(group)}{f' {function}' if function else ''}")
    return names


def _warps(group: Sequence[int]) -> str:
    """`warps 0-3, 8`."""
    ranges: list[list[int]] = []
    for warp in group:
        if ranges and ranges[-1][1] == warp - 1:
            ranges[-1][1] = warp
        else:
            ranges.append([warp, warp])
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
    return f"{'warp' if len(group) == 1 else 'warps'} {text}"


def _function(weights: np.ndarray, instructions: Sequence[Instruction | None]) -> str:
    """The source function with the largest sum of weights."""
    sums: dict[str, int] = {}
    for index in np.flatnonzero(weights):
        instruction = instructions[index]
        if instruction is None or instruction.location is None:
            continue
        name = function_at(author_location(instruction.location))
        if name:
            sums[name] = sums.get(name, 0) + int(weights[index])
    return max(sums, key=lambda name: sums[name]) if sums else ""


def author_location(location: SourceLocation) -> SourceLocation:
    """The innermost line that is not CuTe DSL's own."""
    at: SourceLocation | None = location
    while at is not None:
        if "nvidia_cutlass_dsl" not in at.file:
            return at
        at = at.inlined_at
    return location


def function_at(location: SourceLocation) -> str:
    for begin, end, name in _functions(location.file):
        if begin <= location.line <= end:
            return name
    return ""


@functools.lru_cache(maxsize=64)
def _functions(file: str) -> list[tuple[int, int, str]]:
    """Of a Python file, the innermost first: first line, last line, name."""
    try:
        tree = ast.parse(Path(file).read_text())
    except (OSError, SyntaxError, ValueError):
        return []
    found = [
        (node.lineno, node.end_lineno or node.lineno, node.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return sorted(found, key=lambda function: function[1] - function[0])
