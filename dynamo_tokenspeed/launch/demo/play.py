# SPDX-License-Identifier: MIT
"""Plays the conversation against a frontend: all sessions at once, each turn after turn."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dynamo_tokenspeed.launch.demo import tools
from dynamo_tokenspeed.launch.demo.chat import Reply, chat
from dynamo_tokenspeed.launch.demo.conversation import History, Session, ToolCall

REPLY_TOKENS = 48
# Agents do not start together, and their tools take different times, which are the
# same in every run: otherwise four sessions would take turns in a fixed order, and
# round robin over two workers would bring each back to its own by accident.
_START_APART = 0.3  # seconds
_TOOL_SECONDS = (0.1, 2.0)  # at least, at most

_POLL_SECONDS = 0.2

Replies = dict[tuple[str, int], Reply]  # by session and turn, turns from 1


@dataclass(frozen=True)
class TurnStarted:
    session: str
    turn: int
    task: str
    call: ToolCall | None  # its result is what the turn begins with


@dataclass(frozen=True)
class Text:
    session: str
    turn: int
    text: str


@dataclass(frozen=True)
class TurnEnded:
    session: str
    turn: int
    reply: Reply


Event = TurnStarted | Text | TurnEnded


def play(
    url: str,
    model: str,
    sessions: Sequence[Session],
    *,
    recorded: Replies | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Event]:
    """Everything that happens, in the order in which it happens.

    With `recorded` the history of a session is made of those replies, not of the new
    ones, so that every request is the same as in the recorded run. `check` is called
    while nothing happens; what it raises ends the run.
    """
    events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()

    def run(number: int, session: Session) -> None:
        try:
            time.sleep(number * _START_APART)
            _play_session(url, model, number, session, recorded, events.put)
            events.put(None)
        except BaseException as error:
            events.put(error)

    for number, session in enumerate(sessions):
        threading.Thread(target=run, args=(number, session), daemon=True).start()
    running = len(sessions)
    while running:
        try:
            event = events.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            check()
            continue
        if isinstance(event, BaseException):
            check()  # a worker that died says more than the stream that broke
            raise event
        if event is None:
            running -= 1
        else:
            yield event


def _play_session(
    url: str,
    model: str,
    number: int,
    session: Session,
    recorded: Replies | None,
    tell: Callable[[Event], None],
) -> None:
    history = History(session)
    for turn in range(1, session.turns + 1):
        call = session.calls[turn - 2] if turn > 1 else None
        tell(TurnStarted(session.name, turn, session.task, call))

        def on_text(text: str, turn: int = turn) -> None:
            tell(Text(session.name, turn, text))

        reply = chat(url, request(model, history, seed=10 * number + turn), on_text)
        tell(TurnEnded(session.name, turn, reply))
        if turn < session.turns:
            said = reply if recorded is None else recorded[session.name, turn]
            next_call = session.calls[turn - 1]
            result = tools.call(next_call.name, next_call.arguments)
            time.sleep(random.Random(f"{session.name}{turn}").uniform(*_TOOL_SECONDS))
            history.add_step(said.text, next_call, result)


def request(model: str, history: History, seed: int = 0) -> dict[str, Any]:
    """The body of the chat completion that continues `history`."""
    return {
        "model": model,
        "messages": history.messages,
        "tools": tools.SCHEMA,
        "max_tokens": REPLY_TOKENS,
        "ignore_eos": True,  # the same work in every run
        "temperature": 0.7,
        "seed": seed,
    }
