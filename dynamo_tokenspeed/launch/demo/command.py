# SPDX-License-Identifier: MIT
"""The command `demo`: an agent-like conversation, routed by KV cache and by round robin."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from dynamo_tokenspeed.launch.demo import report
from dynamo_tokenspeed.launch.demo.chat import chat
from dynamo_tokenspeed.launch.demo.conversation import SESSIONS, History
from dynamo_tokenspeed.launch.demo.play import Event, Replies, TurnEnded, play, request
from dynamo_tokenspeed.launch.demo.screen import Screen
from dynamo_tokenspeed.launch.deployment import Deployment
from dynamo_tokenspeed.launch.dynamo_programs import Frontend, FrontendCommand
from dynamo_tokenspeed.launch.errors import LaunchError

WORKERS = 2

_EVENTS_SECONDS = 0.5  # for the router to hear of it


def add_command(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="a multi-turn conversation through Dynamo's frontend and two workers",
        description="Four agents read the standard library, four turns each, through Dynamo's "
        "frontend in KV-router mode and two workers; then the same conversation with round "
        "robin over the same workers. Everything is stopped at the end.",
    )
    parser.add_argument("recipe", type=Path, help="recipes/tiny-kimi/agg.yaml")
    parser.set_defaults(run=demo)


def demo(args: argparse.Namespace) -> int:
    console = Console(highlight=False)
    console.print(
        "A model of 9 million parameters writes text like code, not answers, and which tool is "
        "called when is scripted. The requests, routing, caches and figures are real."
    )
    deployment = Deployment.from_recipe(
        args.recipe, workers=WORKERS, router_mode="kv", on_progress=console.print
    )
    with deployment:
        _hold(deployment, console)
    console.print("Everything is stopped.")
    return 0


def _hold(deployment: Deployment, console: Console) -> None:
    kv_frontend = deployment.frontends[0]
    round_robin_frontend = deployment.add_frontend(
        FrontendCommand(flags=["--router-mode", "round-robin"], name="frontend-round-robin")
    )
    names = {worker.instance_id: worker.name for worker in deployment.workers}

    def worker_name(instance_id: int | None) -> str:
        return names.get(instance_id, "?")

    # Each worker runs its code once before anything is measured.
    for _ in deployment.workers:
        chat(round_robin_frontend.url, request(deployment.model, History(SESSIONS[0])))
    _clear_caches(deployment)
    console.rule("four agents, four turns each, routed by KV cache", align="left")
    screen = Screen(console, worker_name)
    kv_run = _play(deployment, kv_frontend, on_event=screen.show)
    _clear_caches(deployment)
    console.rule("the same requests once more, routed round robin", align="left")
    with console.status("four agents, four turns each"):
        round_robin_run = _play(deployment, round_robin_frontend, recorded=kv_run.replies)
    console.print(report.table(kv_run, round_robin_run, worker_name))
    console.print(report.saving(kv_run, round_robin_run))


def _play(
    deployment: Deployment,
    frontend: Frontend,
    *,
    recorded: Replies | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> report.Run:
    replies: Replies = {}
    started = time.perf_counter()
    events = play(
        frontend.url, deployment.model, SESSIONS, recorded=recorded, check=deployment.check
    )
    for event in events:
        on_event(event)
        if isinstance(event, TurnEnded):
            replies[event.session, event.turn] = event.reply
    return report.Run(replies, time.perf_counter() - started)


def _clear_caches(deployment: Deployment) -> None:
    """Empty every worker's prefix cache, so that each run starts with nothing to find."""
    for worker in deployment.workers:
        answer = worker.control("clear_kv_blocks")
        if not answer.get("cleared"):
            raise LaunchError(f"{worker.name} could not clear its prefix cache: {answer}")
    time.sleep(_EVENTS_SECONDS)
