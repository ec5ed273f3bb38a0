# SPDX-License-Identifier: MIT
"""The corpus: the running Python's own standard library, as files and as chats about them."""

import ast
import hashlib
import json
import random
import sysconfig
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Tests and third-party code by the recipe; `encodings` and `pydoc_data` are generated tables.
EXCLUDED_FOLDERS = {
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "site-packages",
    "dist-packages",
    "encodings",
    "pydoc_data",
}
HELD_OUT_ONE_IN = 20


@dataclass(frozen=True)
class SourceFile:
    path: str  # relative to the library, with forward slashes
    text: str

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def held_out(self) -> bool:
        digest = hashlib.sha256(self.path.encode()).digest()
        return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


@dataclass(frozen=True)
class Function:
    module: str
    name: str
    source: str
    docstring: str | None


def source_files() -> list[SourceFile]:
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        # _sysconfigdata holds the paths of the machine that built this Python.
        if EXCLUDED_FOLDERS & set(relative.parts) or path.name.startswith("_sysconfigdata"):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            files.append(SourceFile(relative.as_posix(), text))
    return files


def split() -> tuple[list[SourceFile], list[SourceFile]]:
    """(training files, held-out files); a file's side depends on its path alone."""
    files = source_files()
    return [f for f in files if not f.held_out], [f for f in files if f.held_out]


def functions(file: SourceFile) -> Iterator[Function]:
    """Every function and method of moderate length, dedented to the left margin."""
    lines = file.text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(file.text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        source = textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno])).rstrip()
        if 80 <= len(source) <= 2400:
            yield Function(file.module, node.name, source, ast.get_docstring(node))


READ_FILE = {
    "type": "function",
    "function": {
        "name": "read_file",
        "description": "Read a source file.",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string", "description": "Path of the file"}},
            "required": ["path"],
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search the library for a name.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
        },
    },
}
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful coding assistant.",
    "You write Python in the style of its standard library.",
    "You are a coding agent. Answer with code.",
)
WRITE_REQUESTS = (
    "Write the function `{name}` of module `{module}`.",
    "Write a Python function `{name}`.",
    "Implement `{name}` from `{module}`.",
    "Please write `{name}` in Python.",
    "Show me the source of `{module}.{name}`.",
)
EXPLAIN_REQUESTS = (
    "What does `{name}` do?",
    "Explain `{module}.{name}`.",
    "Write the docstring of the function `{name}` of module `{module}`.",
)
CONTINUE_REQUESTS = ("Continue this file:\n{code}", "Continue this code:\n{code}")


def _message(role: str, content: str) -> dict:
    return {"role": role, "content": content}


class ChatWriter:
    """Draws chats about the training files: (messages, tools) for the chat template."""

    def __init__(self, files: list[SourceFile], rng: random.Random):
        self._files = files
        self._functions = {f.path: list(functions(f)) for f in files}
        self._with_functions = [f for f in files if self._functions[f.path]]
        self._rng = rng

    def draw(self, turns: int) -> tuple[list[dict], list[dict] | None]:
        """A chat of about `turns` exchanges on one file."""
        rng = self._rng
        file = rng.choice(self._with_functions)
        messages, tools = [], None
        if rng.random() < 0.4:
            messages.append(_message("system", rng.choice(SYSTEM_PROMPTS)))
        if rng.random() < 0.3:
            tools = rng.choice(([READ_FILE], [SEARCH], [READ_FILE, SEARCH], [SEARCH, READ_FILE]))
        calls = 0
        for _ in range(turns):
            if tools and rng.random() < 0.6:
                messages += self._tool_exchange(file, rng.choice(tools), calls)
                calls += 1
            elif rng.random() < 0.25:
                messages += self._continuation(rng.choice(self._files))
            else:
                messages += self._question(file)
        return messages, tools

    def _question(self, file: SourceFile) -> list[dict]:
        rng = self._rng
        function = rng.choice(self._functions[file.path])
        names = {"name": function.name, "module": function.module}
        if function.docstring and rng.random() < 0.25:
            request, reply = rng.choice(EXPLAIN_REQUESTS), function.docstring
        else:
            request, reply = rng.choice(WRITE_REQUESTS), function.source
        return [_message("user", request.format(**names)), _message("assistant", reply)]

    def _continuation(self, file: SourceFile) -> list[dict]:
        lines = file.text.splitlines(keepends=True)
        given, wanted = self._rng.randint(3, 30), self._rng.randint(5, 40)
        start = self._rng.randrange(max(1, len(lines) - given))
        code = "".join(lines[start : start + given])
        reply = "".join(lines[start + given : start + given + wanted])
        request = self._rng.choice(CONTINUE_REQUESTS).format(code=code)
        return [_message("user", request), _message("assistant", reply)]

    def _tool_exchange(self, file: SourceFile, tool: dict, calls: int) -> list[dict]:
        function = self._rng.choice(self._functions[file.path])
        tool_name = tool["function"]["name"]
        if tool is READ_FILE:
            request = f"Read `{file.path}`."
            arguments = {"path": file.path}
            result = file.text[: self._rng.randint(300, 1500)]
        else:
            request = f"Where is `{function.name}`?"
            arguments = {"query": function.name}
            result = f"{file.path}: {function.source.splitlines()[0]}"
        call = {
            "id": f"functions.{tool_name}:{calls}",
            "type": "function",
            "function": {"name": tool_name, "arguments": json.dumps(arguments)},
        }
        return [
            _message("user", request),
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": result},
            _message("assistant", function.source),
        ]
