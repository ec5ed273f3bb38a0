# SPDX-License-Identifier: MIT
"""What is said in the demo: four agents that read the standard library, four turns each.

A 9M-parameter model cannot choose tools, so which tool is called when is written
down here. All else is real: the tools run, their results go into the context, the
model's own replies stay in the history. What is said is bounded in length, so that
four turns fit a context of 4,096 tokens with any version of Python.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dynamo_tokenspeed.launch.demo import tools

Message = dict[str, Any]


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: dict[str, str]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.arguments.values()))})"


@dataclass(frozen=True)
class Session:
    """One agent's work: a task about an open file, then a tool call before each further turn."""

    name: str
    task: str
    open_file: ToolCall  # its result is pasted below the task, as editors do
    calls: tuple[ToolCall, ...]

    @property
    def turns(self) -> int:
        return 1 + len(self.calls)


class History:
    """The messages of one session as they grow from turn to turn."""

    def __init__(self, session: Session) -> None:
        file = session.open_file
        pasted = tools.call(file.name, file.arguments, most_characters=3_600)
        self.messages: list[Message] = [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": f"{session.task}\n\nOpen in the editor:\n\n{pasted}"},
        ]

    def add_step(self, reply: str, call: ToolCall, result: str) -> None:
        """The model said `reply` and called a tool, which returned `result`."""
        identifier = f"functions.{call.name}:{len(self.messages)}"
        function = {"name": call.name, "arguments": json.dumps(call.arguments)}
        self.messages += [
            {
                "role": "assistant",
                "content": reply,
                "tool_calls": [{"id": identifier, "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": identifier, "content": result},
        ]


def _read(module: str, name: str) -> ToolCall:
    return ToolCall("read_source", {"module": module, "name": name})


def _outline(module: str) -> ToolCall:
    return ToolCall("list_definitions", {"module": module})


def _find(module: str, text: str) -> ToolCall:
    return ToolCall("find_text", {"module": module, "text": text})


SESSIONS = (
    Session(
        "A",
        "Our log viewer wraps long lines badly when they hold hyphenated words. Find out how "
        "textwrap chooses the place of a break, and whether break_on_hyphens helps us.",
        _read("textwrap", "TextWrapper._wrap_chunks"),
        (
            _outline("textwrap"),
            _read("textwrap", "TextWrapper._split"),
            _read("textwrap", "TextWrapper._handle_long_word"),
        ),
    ),
    Session(
        "B",
        "We build shell commands from user input. Check what shlex.quote leaves unquoted, and "
        "whether shlex.join is the exact inverse of shlex.split.",
        _read("shlex", "shlex.read_token"),
        (
            _read("shlex", "quote"),
            _read("shlex", "split"),
            _read("shlex", "shlex.__init__"),
        ),
    ),
    Session(
        "C",
        "A scheduler of ours keeps its jobs in a heap and sometimes runs them in the wrong "
        "order. Read heapq and tell me what happens to entries that compare equal.",
        _read("heapq", "merge"),
        (
            _outline("heapq"),
            _read("heapq", "heappush"),
            _read("heapq", "_siftup"),
        ),
    ),
    Session(
        "D",
        "Our ignore files should understand the same patterns as fnmatch. List which special "
        "characters it knows and how it turns a pattern into a regular expression.",
        _read("fnmatch", "translate"),
        (
            _outline("fnmatch"),
            _read("fnmatch", "filter"),
            _find("fnmatch", "re."),
        ),
    ),
)

SYSTEM_PROMPT = """\
You are a careful software engineer who answers questions about the Python standard library. You \
work in a terminal without network access. You never guess what a function does: you read its \
source with the tools below, quote the lines that matter, and say in which version you read them.

How you work

1. Restate the question in one sentence. If it has several parts, number them and answer each.
2. Find the module. If you do not know where something is defined, list the definitions of the \
module first, then read only what you need. Long classes are read method by method.
3. Read the code from the outside in: the signature, the docstring, the checks of the arguments, \
then the loop that does the work. Look for the special cases: an empty sequence, a negative \
number, a string with a newline, two values that compare equal, an iterator that is used twice.
4. When the source and the documentation differ, the source is right. Say so and quote both.
5. When you have found the answer, try to break it. Write the smallest example that would show \
that you are wrong, and follow it through the code line by line.
6. Answer in at most ten sentences. Begin with the answer, then the reason. Put code in fenced \
blocks. Name every file and line that you rely on.

Rules

- Call one tool at a time and wait for its result before you call the next.
- Results are cut after some lines. If the part that you need is missing, read a smaller piece.
- Do not change files. Do not run code. If a question needs a measurement, describe how to make it.
- Never invent a parameter, an exception or a version. If the source does not say it, you do not \
know it.
- A function whose name starts with an underscore is private: explain it where that helps, but do \
not recommend calling it.
- Prefer the simple explanation. If a regular expression is involved, take it apart group by group.
- If a task cannot be done with these tools, say what is missing and stop.

Style

Write plainly and use the words of the library's own documentation. No greetings, no summaries of \
what you are about to do. Functions are written with parentheses, as in split(), modules without, \
as in shlex. Numbers below ten are words, except in code.
"""
