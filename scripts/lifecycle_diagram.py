# SPDX-License-Identifier: MIT
"""Draw the scheduler's transition table (lifecycle.h) into docs/scheduler.md; `--check` compares.

The C++ declarations are the table's only source: what the page shows is what compiles.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "scheduler_cpp" / "include" / "ts" / "lifecycle.h"
PAGE = ROOT / "docs" / "scheduler.md"
BEGIN, END = "<!-- lifecycle:begin -->", "<!-- lifecycle:end -->"

TABLE = re.compile(r"struct Lifecycle \{\s*// clang-format off\n(.*?)// clang-format on", re.DOTALL)
DECLARATION = re.compile(
    r"(?:\[\[\w+\]\]\s*)?static\s+(?P<to>[\w<>, ]+?)\s+(?P<event>\w+)\s*"
    r"\((?P<parameters>[^()]*)\)\s*;(?:[ \t]*//[ \t]*(?P<remark>.*))?"
)
WRAPPER = re.compile(r"(?P<how>Leaving|InFlight)<(?P<state>\w+)(?:,\s*(?P<proof>\w+))?>")


@dataclass(frozen=True)
class State:
    name: str
    remark: str = ""  # what the type around the state says of it

    @classmethod
    def of(cls, cpp: str) -> State:
        wrapper = WRAPPER.fullmatch(cpp)
        if wrapper is None:
            if not re.fullmatch(r"\w+", cpp):
                raise SystemExit(f"{HEADER.name}: `{cpp}` is no state that this script knows")
            return cls(cpp)
        if wrapper["how"] == "Leaving":
            return cls(wrapper["state"], "pages and slot are given back")
        what = "transfer" if wrapper["proof"] == "TransferToken" else "step"
        return cls(wrapper["state"], f"a {what} is in flight")


@dataclass(frozen=True)
class Transition:
    origin: State | None  # None: a request enters
    event: str
    to: State
    remark: str


def transitions(header: str) -> list[Transition]:
    table = TABLE.search(header)
    if table is None:
        raise SystemExit(f"{HEADER.name}: no table between the clang-format marks of Lifecycle")
    found = []
    for declaration in DECLARATION.finditer(table[1]):
        # The first parameter, up to a comma that is not inside <>.
        first = re.match(r"(?:<[^>]*>|[^,<])*", declaration["parameters"])
        assert first is not None
        origin = first[0].strip().split("&&")[0]
        state = None if origin.startswith("RequestPtr") else State.of(origin)
        to = State.of(declaration["to"].strip())
        remark = (declaration["remark"] or "").strip()
        found.append(Transition(state, declaration["event"], to, remark))
    if len(found) != len(re.findall(r"^\W*(?:nodiscard\W+)?static\b", table[1], re.MULTILINE)):
        raise SystemExit(f"{HEADER.name}: a line of the table is no declaration as expected")
    return found


def drawing(table: list[Transition]) -> str:
    """The state diagram, then the same as a table."""
    edges = []
    rows = ["| from | event | to | |", "| --- | --- | --- | --- |"]
    for transition in table:
        origin, to = transition.origin, transition.to
        flying = f" ({origin.remark})" if origin and origin.remark else ""
        edge = f"  {origin.name if origin else '[*]'} --> {to.name}: {transition.event}{flying}"
        if edge not in edges:
            edges.append(edge)
        come_from = (
            f"`{origin.name}`{origin.remark and ', ' + origin.remark}" if origin else "a request"
        )
        news = to.remark if origin is None or to.remark != origin.remark else ""
        remarks = "; ".join(filter(None, (transition.remark, news)))
        rows.append(f"| {come_from} | {transition.event} | `{to.name}` | {remarks} |")
    origins = {transition.origin.name for transition in table if transition.origin}
    ends = dict.fromkeys(t.to.name for t in table if t.to.name not in origins)
    edges += [f"  {name} --> [*]" for name in ends]
    return "\n".join(["```mermaid", "stateDiagram-v2", *edges, "```", "", *rows])


def redrawn(page: str, header: str) -> str:
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"docs/{PAGE.name} has no {BEGIN} ... {END} to draw between")
    return f"{before}{BEGIN}\n{drawing(transitions(header))}\n{END}{after}"


def main() -> int:
    page = PAGE.read_text()
    drawn = redrawn(page, HEADER.read_text())
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(drawn)
        return 0
    if page != drawn:
        print(
            f"docs/{PAGE.name} shows another life of a request than {HEADER.name} declares; "
            f"run scripts/{Path(__file__).name}"
        )
    return int(page != drawn)


if __name__ == "__main__":
    sys.exit(main())
