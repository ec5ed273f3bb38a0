# SPDX-License-Identifier: MIT
"""Write the flags' tables of docs/worker.md from `worker.flags`; `--check` compares."""

from __future__ import annotations

import sys
from pathlib import Path

from dynamo_tokenspeed.worker.flag import Flag
from dynamo_tokenspeed.worker.flag_types import boolean
from dynamo_tokenspeed.worker.flags import GROUPS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "worker.md"
BEGIN, END = "<!-- flags:begin -->", "<!-- flags:end -->"


def row(flag: Flag) -> str:
    names = " ".join(f"`{name}`" for name in (flag.name, *flag.aliases))
    name = f"{names} (`--no-…`)" if flag.parse is boolean else names
    return f"| {name} | {flag.default_text} | {flag.help.replace(' | ', ', ')} |"


def table(title: str, flags: tuple[Flag, ...]) -> str:
    head = f"| {title.lower()} | default | |"
    return "\n".join([head, "| --- | --- | --- |", *map(row, flags)])


def rewritten(page: str) -> str:
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"docs/{PAGE.name} has no {BEGIN} ... {END} to write between")
    tables = "\n\n".join(table(title, flags) for title, flags in GROUPS.items())
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


def main() -> int:
    page = PAGE.read_text()
    written = rewritten(page)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(written)
        return 0
    if page != written:
        print(f"docs/{PAGE.name} has other flags than --help: run scripts/{Path(__file__).name}")
    return int(page != written)


if __name__ == "__main__":
    sys.exit(main())
