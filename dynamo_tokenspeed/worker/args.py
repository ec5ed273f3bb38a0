# SPDX-License-Identifier: MIT
"""The command line: Dynamo's own flags, ours, and what they mean together.

A flag that is accepted does something or is refused with a sentence that says
why. With nothing set by flag or environment, the worker uses the embedded
planes: file discovery, TCP requests, ZMQ events.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from dynamo.common.configuration.groups.runtime_args import (
    DynamoRuntimeArgGroup,
    DynamoRuntimeConfig,
)

from dynamo_tokenspeed.protocol import EngineConfig
from dynamo_tokenspeed.worker.errors import UsageError
from dynamo_tokenspeed.worker.flags import FLAGS, add_flags, fields_given
from dynamo_tokenspeed.worker.kv_events import KVEventsConfig, parse_kv_events_config
from dynamo_tokenspeed.worker.ports import check_system_port
from dynamo_tokenspeed.worker.refusals import refuse_dynamos
from dynamo_tokenspeed.worker.worker_args import WorkerArgs

PROGRAM = "python -m dynamo.tokenspeed"
EMBEDDED_PLANES = {"discovery_backend": "file", "request_plane": "tcp", "event_plane": "zmq"}
_END_SECONDS = 5  # from the end of the drain to the end of the process
_DYNAMOS_SHUTDOWN_SECONDS = 30

_DESCRIPTION = """\
Serve a model as an NVIDIA Dynamo worker: register with Dynamo's runtime, take
routed requests, run the engine, publish KV events for the router.

Every flag has an environment variable; a flag wins over it. With no plane set,
by flag or environment, the worker needs no server: --discovery-backend file,
--request-plane tcp, --event-plane zmq (with ETCD_ENDPOINTS set: etcd).
"""


def parse_args(argv: Sequence[str] | None = None) -> WorkerArgs:
    """Raises `UsageError` with one sentence that names the flag and the way out."""
    parser = build_parser()
    flags = parser.parse_args(argv)
    _check_environment_choices(parser, flags)
    if flags.model is None:
        raise UsageError("--model is missing: give a directory in the Hugging Face layout")
    for flag in FLAGS:
        flag.refuse_what_is_not_served(flags)
    refuse_dynamos(flags)
    kv_events = parse_kv_events_config(flags.kv_events_config, flags.enable_prefix_caching)
    args = WorkerArgs(
        dynamo=_dynamo_config(flags),
        served_model_names=_served_names(flags),
        engine=_engine_config(flags, kv_events),
        kv_events=kv_events,
        **fields_given(flags, WorkerArgs),
    )
    check_system_port()
    _allow_for_drain(args.drain_seconds)
    return args


def _allow_for_drain(drain_seconds: float) -> None:
    """Dynamo ends a worker by force some time after SIGTERM: not before the drain is over."""
    name = "DYN_WORKER_GRACEFUL_SHUTDOWN_TIMEOUT"
    needed = math.ceil(drain_seconds + _END_SECONDS)
    given = os.environ.get(name)
    if given is None:
        if needed > _DYNAMOS_SHUTDOWN_SECONDS:
            os.environ[name] = str(needed)
    elif given.isdigit() and int(given) < needed:
        raise UsageError(
            f"--drain-timeout {drain_seconds:g} does not fit into {name}={given}: Dynamo would end "
            f"the worker first; lower the one, or raise the other to {needed} or more"
        )


class _Parser(argparse.ArgumentParser):
    """One line on stderr instead of the usage of a hundred flags."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help lists every flag)")


class _HelpFormatter(argparse.RawTextHelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, 110)
        super().__init__(prog, max_help_position=28, width=width)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} --model DIR [flags]",
        description=_DESCRIPTION,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    add_flags(parser)
    try:
        DynamoRuntimeArgGroup().add_arguments(parser)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UsageError(f"a DYN_* environment variable has a bad value: {error}") from None
    parser.set_defaults(**_embedded_defaults())
    return parser


def _embedded_defaults() -> dict[str, str]:
    defaults = {
        name: value
        for name, value in EMBEDDED_PLANES.items()
        if f"DYN_{name.upper()}" not in os.environ
    }
    if "ETCD_ENDPOINTS" in os.environ and "discovery_backend" in defaults:
        defaults["discovery_backend"] = "etcd"
    return defaults


def _check_environment_choices(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """argparse checks `choices` on the command line only, and Dynamo's defaults are variables."""
    for action in parser._actions:
        value = getattr(flags, action.dest, None)
        if action.choices is None or value is None or isinstance(value, list):
            continue
        if value not in action.choices:
            name = "DYN_" + action.dest.removeprefix("dyn_").upper()
            raise UsageError(
                f"{action.option_strings[0]} ({name}) is {value!r}, "
                f"but it must be one of {', '.join(map(str, action.choices))}"
            )


def _dynamo_config(flags: argparse.Namespace) -> DynamoRuntimeConfig:
    config: Any = DynamoRuntimeConfig.from_cli_args(flags)
    try:
        config.validate()
    except ValueError as error:
        raise UsageError(str(error)) from None
    if config.engine_request_limit is not None:
        # Dynamo checks the flag; its runtime reads only the variable.
        os.environ["DYN_ENGINE_REQUEST_LIMIT"] = str(config.engine_request_limit)
    if config.custom_jinja_template:
        path = Path(os.path.expandvars(config.custom_jinja_template)).expanduser()
        if not path.is_file():
            raise UsageError(f"--custom-jinja-template {path}: no such file")
        config.custom_jinja_template = str(path)
    config.component = "backend"
    if config.endpoint:
        config.namespace, config.component, config.endpoint = _parse_endpoint(config.endpoint)
    return config


def _parse_endpoint(endpoint: str) -> tuple[str, str, str]:
    parts = endpoint.removeprefix("dyn://").split(".")
    if len(parts) != 3 or not all(parts):
        raise UsageError(
            f"--endpoint {endpoint}: give three names, dyn://namespace.component.endpoint"
        )
    return parts[0], parts[1], parts[2]


def _served_names(flags: argparse.Namespace) -> tuple[str, ...]:
    given = flags.served_model_name or [flags.model]
    names = [name for item in given for name in (item if isinstance(item, list) else [item])]
    if not names:
        raise UsageError("--served-model-name is empty: give a name or leave the flag out")
    return tuple(dict.fromkeys(names))


def _engine_config(flags: argparse.Namespace, kv_events: KVEventsConfig) -> EngineConfig:
    config = EngineConfig(
        model=flags.model,
        kv_events_endpoint=kv_events.endpoint,
        kv_events_topic=kv_events.topic,
        **fields_given(flags, EngineConfig),
    )
    step = config.max_num_batched_tokens
    if flags.max_num_batched_tokens is None:
        step = max(step, flags.chunked_prefill_size or 0, config.max_num_seqs)
    chunk = config.chunked_prefill_size
    if flags.chunked_prefill_size is None:
        chunk = min(chunk, step)
    if flags.deterministic:
        _refuse_another_form(flags)
    config = msgspec.structs.replace(
        config,
        max_num_batched_tokens=step,
        chunked_prefill_size=chunk,
        absorb_from=0 if flags.deterministic else config.absorb_from,
    )
    _refuse_contradictions(flags, config)
    return config


def _refuse_another_form(flags: argparse.Namespace) -> None:
    if flags.absorb_from:
        raise UsageError(
            f"--deterministic computes every token in the absorbed form, and --absorb-from "
            f"{flags.absorb_from} asks for another one before that position: drop one of them"
        )


def _refuse_contradictions(flags: argparse.Namespace, config: EngineConfig) -> None:
    step = config.max_num_batched_tokens
    if flags.num_pages and flags.kv_cache_memory:
        raise UsageError(
            "--num-pages and --kv-cache-memory both say how large the KV cache is: give one"
        )
    if flags.kv_offloading_size and flags.enable_prefix_caching is False:
        raise UsageError(
            "--kv-offloading-size keeps cached prefixes in host memory, and "
            "--no-enable-prefix-caching leaves none to keep: drop one of them"
        )
    if config.chunked_prefill_size > step:
        raise UsageError(
            f"--chunked-prefill-size {config.chunked_prefill_size} is larger than a whole step "
            f"(--max-num-batched-tokens {step}): lower the one or raise the other"
        )
    if step < config.max_num_seqs:
        raise UsageError(
            f"--max-num-batched-tokens {step} leaves no token for each of "
            f"--max-num-seqs {config.max_num_seqs} sequences: raise the one or lower the other"
        )
    if not config.num_pages or not config.max_model_len:
        return
    held = config.num_pages * config.page_size
    if held < config.max_model_len:
        raise UsageError(
            f"--num-pages {config.num_pages} of --block-size {config.page_size} hold {held} "
            f"tokens, less than one sequence of --max-model-len {config.max_model_len}: raise "
            "--num-pages or lower --max-model-len"
        )
