# SPDX-License-Identifier: MIT
"""The command `serve`: what a recipe describes runs until it is interrupted."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dynamo_tokenspeed.launch import loopback
from dynamo_tokenspeed.launch.deployment import Deployment
from dynamo_tokenspeed.launch.follow_logs import follow_logs
from dynamo_tokenspeed.launch.recipe import load_recipe


def add_command(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="start the frontend and the workers of a recipe and leave them running",
        description="Start the frontend and the workers of a recipe; Ctrl-C stops them all.",
    )
    parser.add_argument("recipe", type=Path, help="recipes/…/….yaml")
    parser.add_argument("--workers", type=_count, metavar="N", help="how many workers to start")
    parser.add_argument("--model", type=_directory, metavar="DIR", help="another checkpoint")
    parser.add_argument("--router-mode", metavar="MODE", help="kv, round-robin, …")
    parser.add_argument("--host", default=loopback.HOST, help="where the frontend listens")
    parser.add_argument("--port", type=int, help="its port (default: a free one)")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where the logs are kept")
    parser.add_argument("--verbose", action="store_true", help="show the logs of all programs")
    parser.set_defaults(run=serve)


def serve(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.recipe)
    say(f"{recipe.name}: {recipe.description}")
    deployment = Deployment.from_recipe(
        recipe,
        workers=args.workers,
        model=args.model,
        router_mode=args.router_mode,
        host=args.host,
        port=args.port,
        run_dir=args.run_dir,
        on_progress=say,
    )
    try:
        with ExitStack() as stack:
            if args.verbose:
                stack.enter_context(follow_logs(deployment))
            stack.enter_context(deployment)
            say(f"\nTry it:\n\n{curl_line(deployment.url, deployment.model)}\n")
            say(f"Logs are in {deployment.run_dir}. Ctrl-C stops everything.")
            deployment.wait()
    except KeyboardInterrupt:
        say("stopped")  # the way it is meant to end
    return 0


def curl_line(url: str, model: str) -> str:
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": "Write a function that reads a file."}],
            "max_tokens": 64,
            "stream": True,
        }
    )
    return (
        f"  curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"    -d '{body}'"
    )


def say(line: str) -> None:
    print(line, flush=True)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers; give 1 or more")
    return int(text)


def _directory(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {text}")
    return Path(text)
