# SPDX-License-Identifier: MIT
"""Agents in a closed loop: each sends its whole history, reads the answer, works, sends again."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np

Interval = tuple[int, int]


@dataclass(frozen=True)
class Traffic:
    """What the agents do; pairs are drawn from uniformly. Tokens and seconds."""

    agents: int
    shared: int  # tokens that all conversations begin with: system prompt, tools
    first: Interval  # tokens of a conversation's first prompt beside them
    more: Interval  # tokens that a turn adds: what a tool returned
    output: Interval
    turns: Interval  # of a conversation; then the agent begins another
    think: tuple[float, float]  # from an answer's end to the next turn
    ramp: float  # over which the agents arrive
    vocab_size: int


@dataclass
class Turn:
    agent: int
    prompt: np.ndarray
    max_tokens: int
    sent: float
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


class AgenticLoad:
    """The agents' side. Times are the caller's clock, in seconds since the start."""

    def __init__(self, traffic: Traffic, seed: int = 0) -> None:
        self._traffic, self._random = traffic, np.random.default_rng(seed)
        self._shared = self._tokens(traffic.shared)
        self._history = [np.empty(0, np.int32)] * traffic.agents
        self._turns_left = [0] * traffic.agents
        self._waking = [
            (i * traffic.ramp / traffic.agents, i) for i in range(traffic.agents)
        ]  # a heap of (when, agent)
        self.turns: list[Turn] = []  # by request id

    @property
    def next_turn(self) -> float:
        """When the next agent sends; infinite while all wait for an answer."""
        return self._waking[0][0] if self._waking else float("inf")

    def due(self, now: float) -> list[int]:
        """Request ids of the turns that are sent by now."""
        begin = len(self.turns)
        while self._waking and self._waking[0][0] <= now:
            sent, agent = heapq.heappop(self._waking)
            if self._turns_left[agent] == 0:
                self._turns_left[agent] = self._draw(self._traffic.turns)
                self._history[agent] = self._shared
                added = self._draw(self._traffic.first)
            else:
                added = self._draw(self._traffic.more)
            self._turns_left[agent] -= 1
            prompt = np.concatenate([self._history[agent], self._tokens(added)])
            self.turns.append(Turn(agent, prompt, self._draw(self._traffic.output), sent))
        return list(range(begin, len(self.turns)))

    def receive(
        self, requests: np.ndarray, tokens: np.ndarray, finish: np.ndarray, now: float
    ) -> None:
        """The fields of a step's `Output`, which came at `now`."""
        entries = zip(requests.tolist(), tokens.tolist(), finish.tolist(), strict=True)
        for request, token, finished in entries:
            turn = self.turns[request]
            turn.tokens.append(token)
            turn.times.append(now)
            if finished:
                answer = np.array(turn.tokens, np.int32)
                self._history[turn.agent] = np.concatenate([turn.prompt, answer])
                think = self._random.uniform(*self._traffic.think)
                heapq.heappush(self._waking, (now + think, turn.agent))

    def _draw(self, interval: Interval) -> int:
        return int(self._random.integers(interval[0], interval[1] + 1))

    def _tokens(self, count: int) -> np.ndarray:
        return self._random.integers(1, self._traffic.vocab_size, count, dtype=np.int32)


@dataclass(frozen=True)
class Served:
    """What the agents got between two times."""

    tokens_per_minute: float
    turns: int  # that ended
    tps_p1: float  # of a turn: tokens behind the first, over the time from it to the last
    tps_p50: float
    longest_gap: float  # seconds between two tokens of a turn
    first_token_p50: float  # seconds from a turn's sending
    first_token_p99: float


def served(load: AgenticLoad, begin: float, end: float) -> Served:
    times = np.concatenate([np.array(turn.times) for turn in load.turns])
    tokens = np.count_nonzero((times >= begin) & (times < end))
    ended = [
        turn
        for turn in load.turns
        if len(turn.tokens) == turn.max_tokens and turn.times[0] >= begin and turn.times[-1] < end
    ]
    rates = [(len(t.times) - 1) / (t.times[-1] - t.times[0]) for t in ended]
    waits = [t.times[0] - t.sent for t in ended]
    return Served(
        tokens_per_minute=60 * tokens / (end - begin),
        turns=len(ended),
        tps_p1=float(np.quantile(rates, 0.01)),
        tps_p50=float(np.quantile(rates, 0.5)),
        longest_gap=float(max(np.diff(t.times).max() for t in ended)),
        first_token_p50=float(np.quantile(waits, 0.5)),
        first_token_p99=float(np.quantile(waits, 0.99)),
    )
