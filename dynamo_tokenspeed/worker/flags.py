# SPDX-License-Identifier: MIT
"""Our command-line flags: their names, environment variables, types and help.

Names are those that recipes for vLLM, SGLang and TokenSpeed already use. Every
flag defaults to None, which means "not given": `args` decides then, and can tell
two contradictory flags from one flag and a default.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from typing import Any

from dynamo_tokenspeed.worker.errors import UsageError
from dynamo_tokenspeed.worker.generation_config import parse_override

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B?|B)?", re.IGNORECASE)
_TRUE, _FALSE = ("1", "true", "on", "yes"), ("0", "false", "off", "no", "")


def positive_int(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small: give 1 or more")
    return value


def natural_int(text: str) -> int:
    value = whole_int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{value} is not a number from 0 to {2**31 - 1}")
    return value


def whole_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds, 0 or more")
    return value


def tokens_per_second(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of tokens/s") from None
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of tokens/s, 0 or more")
    return value


def size(text: str) -> int:
    """Bytes from `2GiB`, `500M`, `1000000`; K, M, G, T are powers of 1024, KB ... of 1000."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 2GiB or 500M")
    number, prefix, binary = match.groups()
    base = 1000 if prefix and not binary and text.strip().upper().endswith("B") else 1024
    factor = base ** " KMGT".index(prefix.upper()) if prefix else 1
    value = int(float(number) * factor)
    if value < 1:
        raise argparse.ArgumentTypeError("0 bytes hold no KV page")
    return value


def generation_override(text: str) -> dict[str, Any]:
    try:
        return parse_override(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def one_of(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(values)}")
        return text

    return parse


def boolean(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in _TRUE


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Raises `UsageError` when an environment variable has a bad value."""
    _model(parser)
    _capacity(parser)
    _execution(parser)
    _serving(parser)


class _Group:
    """One group of `--help`; adds the environment variable to each flag's text."""

    def __init__(self, parser: argparse.ArgumentParser, title: str) -> None:
        self._group = parser.add_argument_group(title)

    def flag(
        self, *names: str, env: str, type: Callable[[str], Any] = str, help: str, **options: Any
    ) -> None:
        self._group.add_argument(
            *names, type=type, help=_text(help, env), default=_from_env(env, type), **options
        )

    def switch(self, name: str, env: str, help: str) -> None:
        self._group.add_argument(
            name,
            action=argparse.BooleanOptionalAction,
            help=_text(help, env),
            default=_from_env(env, boolean),
        )


def _text(help: str, env: str) -> str:
    return f"{help}\nenv var: {env}".replace("%", "%%")


def _from_env(env: str, type: Callable[[str], Any]) -> Any:
    text = os.environ.get(env)
    if text is None:
        return None
    try:
        return type(text)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"environment variable {env}: {error}") from None


def _names(text: str) -> list[str]:
    return [name for name in re.split(r"[\s,]+", text) if name]


def _model(parser: argparse.ArgumentParser) -> None:
    group = _Group(parser, "Model")
    group.flag(
        *("--model", "--model-path"),
        env="TS_MODEL",
        metavar="DIR",
        help="Directory in the Hugging Face layout, or a hub id (fetched by Dynamo).",
    )
    group.flag(
        "--served-model-name",
        env="TS_SERVED_MODEL_NAME",
        type=_names,
        nargs="+",
        metavar="NAME",
        help="Name that clients ask for; more names are aliases (ai-dynamo 1.6).\n"
        "Default: --model as given.",
    )
    group.flag(
        "--dtype",
        env="TS_DTYPE",
        type=one_of("auto", "bfloat16", "float32"),
        help="auto | bfloat16 | float32. auto: what config.json says.",
    )
    group.flag(
        "--quantization",
        env="TS_QUANTIZATION",
        help="Only 'none' in this version: weights are served in --dtype.",
    )
    group.switch(
        "--trust-remote-code",
        env="TS_TRUST_REMOTE_CODE",
        help="A permission that this worker never uses: models are its own code, and no\n"
        "Python file of a checkpoint is run. Accepted so that recipes stay as they are.",
    )


def _capacity(parser: argparse.ArgumentParser) -> None:
    group = _Group(parser, "Capacity")
    group.flag(
        *("--max-model-len", "--context-length"),
        env="TS_MAX_MODEL_LEN",
        type=positive_int,
        metavar="TOKENS",
        help="Longest sequence, prompt and answer together. Default: the model's own limit.",
    )
    group.flag(
        "--max-num-seqs",
        env="TS_MAX_NUM_SEQS",
        type=positive_int,
        metavar="N",
        help="Most sequences that run at once. Default: 64.",
    )
    group.flag(
        "--max-num-batched-tokens",
        env="TS_MAX_NUM_BATCHED_TOKENS",
        type=positive_int,
        metavar="TOKENS",
        help="Most tokens of one step, prefill and decode together. Default: 2048.",
    )
    group.flag(
        "--chunked-prefill-size",
        env="TS_CHUNKED_PREFILL_SIZE",
        type=positive_int,
        metavar="TOKENS",
        help="Most prompt tokens of one request in one step. Default: 512.",
    )
    group.flag(
        "--min-tps-per-user",
        env="TS_MIN_TPS_PER_USER",
        type=tokens_per_second,
        metavar="TPS",
        help="Tokens/s that every decoding user keeps: prefill chunks shrink and admission waits\n"
        "where a step would last longer than that allows. Default: 0, no floor.",
    )
    group.flag(
        *("--block-size", "--page-size"),
        env="TS_BLOCK_SIZE",
        type=positive_int,
        metavar="TOKENS",
        help="Tokens of a KV page: what the prefix cache and the router reuse. Default: 16.",
    )
    group.flag(
        "--num-pages",
        env="TS_NUM_PAGES",
        type=positive_int,
        metavar="N",
        help="KV pages in all. Default: from --kv-cache-memory, or from the free memory.",
    )
    group.flag(
        "--kv-cache-memory",
        env="TS_KV_CACHE_MEMORY",
        type=size,
        metavar="SIZE",
        help="Memory for KV pages, such as 2GiB.",
    )
    group.flag(
        "--kv-offloading-size",
        env="TS_KV_OFFLOADING_SIZE",
        type=size,
        metavar="SIZE",
        help="Host memory for cached KV pages that no longer fit, such as 16GiB; a prefix found\n"
        "there is loaded, not computed. Default: none.",
    )
    group.flag(
        "--kv-cache-dtype",
        env="TS_KV_CACHE_DTYPE",
        help="Only 'auto' in this version: the KV cache has --dtype.",
    )
    group.flag(
        "--gpu-memory-utilization",
        env="TS_GPU_MEMORY_UTILIZATION",
        metavar="FRACTION",
        help="For GPUs, which this version does not serve on: give --kv-cache-memory.",
    )
    group.switch(
        "--enable-prefix-caching",
        env="TS_ENABLE_PREFIX_CACHING",
        help="Reuse KV pages of equal prefixes. Default: on.",
    )


def _execution(parser: argparse.ArgumentParser) -> None:
    group = _Group(parser, "Execution")
    group.flag("--device", env="TS_DEVICE", help="Only 'cpu' in this version ('auto' chooses it).")
    group.flag(
        "--num-threads",
        env="TS_NUM_THREADS",
        type=positive_int,
        metavar="N",
        help="CPU threads of the engine process. Default: the CPUs that this process may use, or\n"
        "the CPU quota of its cgroup (rounded down) where that is less.",
    )
    group.switch(
        "--overlap-schedule",
        env="TS_OVERLAP_SCHEDULE",
        help="Plan and launch a step before the tokens of the one before it are read, so that the\n"
        "device never waits for the host; the tokens are the same. Default: on for cuda, off on\n"
        "cpu, where the host is the device.",
    )
    group.switch(
        "--deterministic",
        env="TS_DETERMINISTIC",
        help="An answer has the bits of a cold run whatever the cache holds, even where tokens\n"
        "that were generated stand in a prompt. The same as --absorb-from 0. Default: off.",
    )
    group.flag(
        "--absorb-from",
        env="TS_ABSORB_FROM",
        type=natural_int,
        metavar="POSITION",
        help="Latent attention of prompt tokens: expanded before this position, cheap for long\n"
        "prompts, and absorbed from it on, cheap for an agent's next turn. Default: 2048.",
    )
    group.flag(
        "--attention-backend",
        env="TS_ATTENTION_BACKEND",
        metavar="NAME",
        help="Kernel backend for attention, overriding the registry's choice.",
    )
    group.flag(
        "--moe-backend",
        env="TS_MOE_BACKEND",
        metavar="NAME",
        help="Kernel backend for the experts, overriding the registry's choice.",
    )
    group.flag(
        *("--tensor-parallel-size", "--tp-size", "-tp"),
        env="TS_TENSOR_PARALLEL_SIZE",
        type=positive_int,
        metavar="N",
        help="Only 1 in this version: a worker serves one rank.",
    )
    group.flag(
        *("--data-parallel-size", "--dp-size", "-dp"),
        env="TS_DATA_PARALLEL_SIZE",
        type=positive_int,
        metavar="N",
        help="Only 1 in this version: start one worker per replica, the router knows them all.",
    )
    group.switch(
        "--enable-expert-parallel",
        env="TS_ENABLE_EXPERT_PARALLEL",
        help="Spreads experts over ranks, of which this version has one: refused.",
    )
    group.flag(
        "--disaggregation-mode",
        env="TS_DISAGGREGATION_MODE",
        help="Only 'agg' in this version: prefill and decode in one worker.",
    )


def _serving(parser: argparse.ArgumentParser) -> None:
    group = _Group(parser, "Serving")
    group.flag(
        "--kv-events-config",
        env="TS_KV_EVENTS_CONFIG",
        metavar="JSON",
        help='KV events for the router, e.g. {"enable_kv_cache_events": true,\n'
        '"publisher": "zmq", "endpoint": "tcp://127.0.0.1:*", "topic": ""}.\n'
        "Default: on while prefix caching is on, at a free local port.",
    )
    group.flag(
        "--drain-timeout",
        env="TS_DRAIN_TIMEOUT",
        type=seconds,
        metavar="SECONDS",
        help="On SIGTERM, how long running streams may go on before the frontend is told to\n"
        "migrate them. Comes after DYN_GRACEFUL_SHUTDOWN_GRACE_PERIOD_SECS. Default: 20.",
    )
    group.flag(
        "--step-timeout",
        env="TS_STEP_TIMEOUT",
        type=seconds,
        metavar="SECONDS",
        help="Ends this worker when its engine gives no sign of life for so long: the process is\n"
        "stopped, a step does not return, or the engine hangs outside of one. Its streams go on\n"
        "at other workers. A step may take longer: native kernels give signs while they compute;\n"
        "raise it where other backends (torch) need longer for one step. 0: never. Default: 300.",
    )
    group.flag(
        "--generation-config",
        env="TS_GENERATION_CONFIG",
        metavar="SOURCE",
        help="Defaults of temperature, top_p, top_k, min_p and repetition_penalty, and a limit\n"
        "(max_new_tokens) of every answer: auto (generation_config.json of the model), vllm\n"
        "(neutral ones), or a directory with such a file. Default: auto.",
    )
    group.flag(
        "--override-generation-config",
        env="TS_OVERRIDE_GENERATION_CONFIG",
        type=generation_override,
        metavar="JSON",
        help='Defaults that win over those, e.g. {"temperature": 0.6}.',
    )
    group.flag(
        "--seed",
        env="TS_SEED",
        type=whole_int,
        metavar="N",
        help="Fixes the seeds that requests without one draw. Default: from the system.",
    )
    group.flag(
        "--log-level",
        env="TS_LOG_LEVEL",
        type=one_of("debug", "info", "warning", "error"),
        help="debug | info | warning | error, of the engine process. Default: info.\n"
        "This process logs as DYN_LOG says.",
    )
