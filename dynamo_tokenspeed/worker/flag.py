# SPDX-License-Identifier: MIT
"""What a flag of ours is, and how argparse, the environment and a user meet it."""

from __future__ import annotations

import argparse
import dataclasses
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from dynamo_tokenspeed.protocol import EngineConfig
from dynamo_tokenspeed.worker.errors import UsageError
from dynamo_tokenspeed.worker.flag_types import boolean, text
from dynamo_tokenspeed.worker.worker_args import WorkerArgs

_ENGINE = msgspec.structs.fields(EngineConfig)
_DEFAULTS: dict[type, dict[str, Any]] = {
    EngineConfig: {field.name: field.default for field in _ENGINE},
    WorkerArgs: {field.name: field.default for field in dataclasses.fields(WorkerArgs)},
}


@dataclass(frozen=True)
class Flag:
    """One flag. Either it sets a field, or it says which values are served."""

    name: str
    _: dataclasses.KW_ONLY
    help: str
    aliases: tuple[str, ...] = ()
    parse: Callable[[str], Any] = text  # `boolean`: a switch, with a --no- form
    metavar: str | None = None
    nargs: str | None = None
    sets: tuple[type, str] | None = None  # the class and its field
    computed: bool = False  # `args` computes the field, from this flag and others
    default: str = ""  # in words: what the field's default means, or how it is found
    served: tuple[Any, ...] | None = None  # None: every value that `parse` takes
    why: str = ""  # others are not, and the way out

    @property
    def dest(self) -> str:
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def env(self) -> str:
        return f"TS_{self.dest.upper()}"

    @property
    def default_text(self) -> str:
        """What holds when it is not given; "" where nothing does."""
        value = None if self.sets is None else _DEFAULTS[self.sets[0]][self.sets[1]]
        if self.computed or not isinstance(value, str | int | float):
            return self.default
        shown = {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"
        shown = shown.removesuffix(".0")
        return f"{shown}, {self.default}" if self.default else shown

    def given(self, flags: argparse.Namespace) -> Any:
        return getattr(flags, self.dest)

    def add_to(self, parser: argparse._ArgumentGroup) -> None:
        """Raises `UsageError` when its environment variable has a bad value."""
        default = f" Default: {self.default_text}." if self.default_text else ""
        shown = f"{textwrap.fill(self.help + default, 84)}\nenv var: {self.env}"
        options: dict[str, Any] = {"help": shown.replace("%", "%%")}
        options |= {"default": self._from_environment()}
        if self.parse is boolean:
            options |= {"action": argparse.BooleanOptionalAction}
        else:
            options |= {"type": self.parse, "metavar": self.metavar, "nargs": self.nargs}
        parser.add_argument(self.name, *self.aliases, **options)

    def _from_environment(self) -> Any:
        given = os.environ.get(self.env)
        if given is None:
            return None
        try:
            return self.parse(given)
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"environment variable {self.env}: {error}") from None

    def refuse_what_is_not_served(self, flags: argparse.Namespace) -> None:
        value = self.given(flags)
        if value is None or self.served is None or value in self.served:
            return
        shown = self.name if value is True else f"{self.name} {value}"
        raise UsageError(f"{shown}: {self.why}")
