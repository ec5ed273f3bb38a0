# SPDX-License-Identifier: MIT
"""What the terminal shows while the conversation runs.

Four sessions talk at once; the screen follows one reply at a time, as it streams,
and tells of the others in a line when they end. Plain text where there is no
terminal.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.text import Text as Styled

from dynamo_tokenspeed.launch.demo.chat import Reply
from dynamo_tokenspeed.launch.demo.play import Event, Text, TurnEnded, TurnStarted

Turn = tuple[str, int]  # session and number

_COLORS = {"A": "cyan", "B": "magenta", "C": "yellow", "D": "green"}


class Screen:
    def __init__(self, console: Console, worker_name: Callable[[int | None], str]) -> None:
        self._console = console
        self._worker_name = worker_name
        self._running: dict[Turn, TurnStarted] = {}
        self._said: dict[Turn, str] = {}
        self._followed: Turn | None = None
        self._last_followed = ""  # the next one is another session's, if there is one
        self._ended: list[TurnEnded] = []  # while another was followed

    def show(self, event: Event) -> None:
        turn = (event.session, event.turn)
        match event:
            case TurnStarted():
                self._running[turn] = event
                self._said[turn] = ""
            case Text():
                self._said[turn] += event.text
                if turn == self._followed:
                    self._write(event.text)
            case TurnEnded():
                del self._running[turn], self._said[turn]
                self._ended.append(event)
                if turn == self._followed:
                    self._followed = None
                    self._console.print()
        if self._followed is None:
            self._show_ended()
            self._follow_another()

    def _follow_another(self) -> None:
        """Turn to a reply that has begun, and catch up with it."""
        begun = [turn for turn, text in self._said.items() if text]
        others = [turn for turn in begun if turn[0] != self._last_followed]
        if not others and (not begun or len(self._running) > 1):
            return
        self._followed = turn = (others or begun)[0]
        self._last_followed = turn[0]
        started = self._running[turn]
        line = _label(turn)
        line.append(f" {started.task if started.call is None else started.call}", style="dim")
        self._console.print(line, no_wrap=True, overflow="ellipsis")
        self._write(self._said[turn])

    def _show_ended(self) -> None:
        for ended in self._ended:
            line = _label((ended.session, ended.turn))
            line.append(f" {measured(ended.reply, self._worker_name)}")
            self._console.print(line)
        self._ended.clear()

    def _write(self, text: str) -> None:
        self._console.print(text, end="", markup=False, soft_wrap=True)


def measured(reply: Reply, worker_name: Callable[[int | None], str]) -> str:
    return (
        f"{worker_name(reply.instance_id)}  {reply.prompt_tokens:,} prompt tokens, "
        f"{reply.cached_tokens:,} cached; first after {reply.first_token_time * 1e3:.0f} ms, "
        f"then {reply.tokens_per_second:.0f}/s"
    )


def _label(turn: Turn) -> Styled:
    session, number = turn
    return Styled(f"[{session}{number}]", style=f"bold {_COLORS.get(session, '')}")
