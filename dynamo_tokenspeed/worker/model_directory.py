# SPDX-License-Identifier: MIT
"""The model's directory, checked cheaply before anything heavy is imported.

What is read here is what the worker and the frontend need; the engine process checks the
weights, and all that `config.json` says of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from dynamo_tokenspeed.worker.errors import UsageError
from dynamo_tokenspeed.worker.frontend_files import check_frontend_files
from dynamo_tokenspeed.worker.generation_config import read_generation_defaults
from dynamo_tokenspeed.worker.token_table import read_token_table
from dynamo_tokenspeed.worker.worker_args import WorkerArgs

# What `dynamo_tokenspeed.model` can load. Kept here as well, because the worker
# process never imports it; tests/contract compares the two.
ARCHITECTURES = (
    "DeepseekV3ForCausalLM",
    "KimiK25ForConditionalGeneration",
    "Kimi_K25ForConditionalGeneration",  # as transformers saves it
    "NullForCausalLM",  # computes nothing, for benchmarks
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_SECONDS = 2.0


def check_model_directory(model: str) -> dict[str, Any]:
    """The parsed `config.json`. Raises `UsageError` with one sentence."""
    directory = Path(model)
    path = directory / "config.json"
    if not path.is_file():
        raise UsageError(
            f"--model {model}: there is no config.json in it; give a directory in the "
            "Hugging Face layout (config.json, tokenizer.json, *.safetensors)"
        )
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--model {model}: config.json cannot be read: {error}") from None
    architectures = config.get("architectures") if isinstance(config, dict) else None
    if not architectures or not isinstance(architectures, list):
        raise UsageError(
            f"--model {model}: config.json names no architecture (key 'architectures')"
        )
    if architectures[0] not in ARCHITECTURES:
        raise UsageError(
            f"--model {model}: architecture {architectures[0]} is not "
            f"supported; this version serves {', '.join(ARCHITECTURES)}"
        )
    return config


async def resolve_model(args: WorkerArgs) -> WorkerArgs:
    """`args` with `model` a checked directory. Raises `UsageError`."""
    refuse_missing(args.model)
    model = args.model if Path(args.model).is_dir() else await fetch_from_hub(args.model)
    model = str(Path(model).absolute())
    config = check_model_directory(model)
    table = read_token_table(Path(model))
    endpoints = {name.strip() for name in args.dynamo.endpoint_types.split(",")}
    if endpoints != {"none"}:
        check_frontend_files(
            Path(model),
            config,
            chat="chat" in endpoints,
            template=args.dynamo.custom_jinja_template,
        )
    defaults = read_generation_defaults(
        model, args.generation_config, args.override_generation_config
    )
    engine = msgspec.structs.replace(
        args.engine, model=model, num_token_ids=table.size, unknown_token_ids=sorted(table.holes)
    )
    return dataclasses.replace(args, model=model, engine=engine, table=table, defaults=defaults)


def is_hub_id(model: str) -> bool:
    return _HUB_ID.fullmatch(model) is not None


def refuse_missing(model: str) -> None:
    """Raises `UsageError` unless `model` is a directory or could be a hub id."""
    if Path(model).is_dir():
        return
    if Path(model).exists():
        raise UsageError(f"--model {model}: this is a file; give the directory that holds it")
    if not is_hub_id(model):
        raise UsageError(
            f"--model {model}: no such directory; give a directory in the Hugging Face layout, "
            "or a hub id such as moonshotai/Kimi-K2.5"
        )


async def fetch_from_hub(model: str) -> str:
    """The local directory of a hub id, from the hub's cache or downloaded by Dynamo."""
    from dynamo.llm import fetch_model

    if not _hub_answers() and not _is_cached(model):
        raise UsageError(
            f"--model {model}: no such directory here, and the hub "
            f"({_hub_address()[0]}) is out of reach; download the model first and give its "
            "directory, or set HF_ENDPOINT"
        )
    try:
        return str(await fetch_model(model))
    except Exception as error:  # whatever the Rust downloader raises, the way out is the same
        reason = " ".join(str(error).split())
        raise UsageError(
            f"--model {model}: no such directory here, and the hub does not give it: {reason}"
        ) from None


def _hub_address() -> tuple[str, int]:
    url = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return url.hostname or "huggingface.co", url.port or (80 if url.scheme == "http" else 443)


def _hub_answers() -> bool:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "on", "yes"):
        return False
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY")):
        return True  # only the downloader knows
    answers = []

    def connect() -> None:
        with contextlib.suppress(OSError):
            socket.create_connection(_hub_address(), timeout=_HUB_SECONDS).close()
            answers.append(True)

    # Name resolution knows no timeout: a thread that may outlive the question.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_HUB_SECONDS)
    return bool(answers)


def _is_cached(model: str) -> bool:
    home = os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    return (cache / f"models--{model.replace('/', '--')}" / "snapshots").is_dir()
