# SPDX-License-Identifier: MIT
"""The demo's result: every turn under both ways of routing, and what the difference is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from dynamo_tokenspeed.launch.demo.play import Replies


@dataclass(frozen=True)
class Run:
    """The whole conversation under one way of routing."""

    replies: Replies
    seconds: float

    @property
    def prompt_tokens(self) -> int:
        return sum(reply.prompt_tokens for reply in self.replies.values())

    @property
    def computed_tokens(self) -> int:
        return sum(reply.computed_tokens for reply in self.replies.values())

    @property
    def mean_first_token_time(self) -> float:
        """Over the turns that continue a conversation: a first turn has nothing to find."""
        later = [reply.first_token_time for (_, turn), reply in self.replies.items() if turn > 1]
        return sum(later) / len(later)


def table(kv: Run, round_robin: Run, worker_name: Callable[[int | None], str]) -> Table:
    """One row per turn, at most 80 columns wide."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0), caption_justify="left")
    table.caption = "A1: session A, turn 1. Same requests in both runs, empty caches before."
    table.add_column("\nturn")
    table.add_column("prompt\ntokens", justify="right")
    for name in ("KV router", "round robin"):
        table.add_column(f" {name}\n worker")
        table.add_column("cached\ntokens", justify="right", style="bold")
        table.add_column("first\nms", justify="right")
        table.add_column("then\ntok/s", justify="right")
    for key in sorted(kv.replies):
        session, turn = key
        row = [f"{session}{turn}", f"{kv.replies[key].prompt_tokens:,}"]
        for run in (kv, round_robin):
            reply = run.replies[key]
            row += [
                f" {worker_name(reply.instance_id)}",
                f"{reply.cached_tokens:,}",
                f"{reply.first_token_time * 1e3:.0f}",
                f"{reply.tokens_per_second:.0f}",
            ]
        is_last_turn = (session, turn + 1) not in kv.replies
        table.add_row(*row, end_section=is_last_turn)
    return table


def saving(kv: Run, round_robin: Run) -> str:
    """What KV-aware routing saved against round robin, in a sentence."""
    tokens = 1 - kv.computed_tokens / round_robin.computed_tokens
    wait = 1 - kv.mean_first_token_time / round_robin.mean_first_token_time
    return (
        f"KV-aware routing computed {kv.computed_tokens:,} of {kv.prompt_tokens:,} prompt tokens, "
        f"round robin {round_robin.computed_tokens:,}: {_less(tokens)} prefill; the first token "
        f"of turns 2 to 4 came after {kv.mean_first_token_time * 1e3:.0f} ms instead of "
        f"{round_robin.mean_first_token_time * 1e3:.0f} ms on average, {_less(wait)} waiting "
        f"(whole conversation: {kv.seconds:.1f} s and {round_robin.seconds:.1f} s)."
    )


def _less(share: float) -> str:
    return f"{share:.0%} less" if share >= 0 else f"{-share:.0%} more"
