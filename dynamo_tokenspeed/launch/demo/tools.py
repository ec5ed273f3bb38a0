# SPDX-License-Identifier: MIT
"""The tools of the demo's agent: they really read the Python standard library."""

from __future__ import annotations

import ast
import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_CHARACTERS = 1_200  # of one result, some 400 tokens

_MODULE = {"type": "string", "description": "A module of the standard library, such as shlex."}
SCHEMA: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "list_definitions",
            "description": "List the classes and functions of a module with their line numbers.",
            "parameters": {
                "type": "object",
                "properties": {"module": _MODULE},
                "required": ["module"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "read_source",
            "description": "Read the source of one function, class or method of a module.",
            "parameters": {
                "type": "object",
                "properties": {
                    "module": _MODULE,
                    "name": {
                        "type": "string",
                        "description": "What to read: split, or TextWrapper.fill for a method.",
                    },
                },
                "required": ["module", "name"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "find_text",
            "description": "Find the lines of a module that contain a text, with their numbers.",
            "parameters": {
                "type": "object",
                "properties": {
                    "module": _MODULE,
                    "text": {"type": "string", "description": "The text, taken literally."},
                },
                "required": ["module", "text"],
            },
        },
    },
]


def call(name: str, arguments: dict[str, str], most_characters: int = MOST_CHARACTERS) -> str:
    """The result of one tool call; whole lines are cut off if it is too long."""
    lines = _TOOLS[name](**arguments)
    kept, size = 0, 0
    while kept < len(lines) and (size := size + len(lines[kept]) + 1) <= most_characters:
        kept += 1
    if kept < len(lines):
        lines = [*lines[:kept], f"... {len(lines) - kept} more lines"]
    return "\n".join(lines)


def list_definitions(module: str) -> list[str]:
    return [
        f"{node.lineno:5} {'class' if isinstance(node, ast.ClassDef) else 'def'} {name}"
        for name, node in _definitions(module).items()
    ]


def read_source(module: str, name: str) -> list[str]:
    node = _definitions(module).get(name)
    if node is None:
        return [f"{module} defines no {name}"]
    return _source(module).splitlines()[node.lineno - 1 : node.end_lineno]


def find_text(module: str, text: str) -> list[str]:
    return [
        f"{number:5} {line.strip()}"
        for number, line in enumerate(_source(module).splitlines(), 1)
        if text in line
    ]


_TOOLS: dict[str, Callable[..., list[str]]] = {
    "list_definitions": list_definitions,
    "read_source": read_source,
    "find_text": find_text,
}

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# CPython 3.11 counts the depth of every ast.parse in one place: where the garbage collector lets
# another thread parse in between, both fail with "AST constructor recursion depth mismatch".
_PARSING = threading.Lock()


def _definitions(module: str) -> dict[str, _Definition]:
    """What a module defines at its top level, and the methods of its classes."""
    found: dict[str, _Definition] = {}
    source = _source(module)
    with _PARSING:
        body = ast.parse(source).body
    for node in body:
        if isinstance(node, _Definition):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, _Definition):
                    found[f"{node.name}.{member.name}"] = member
    return found


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise LookupError(f"this Python has no source of the module {module}")
    return Path(spec.origin).read_text(encoding="utf-8")
