# SPDX-License-Identifier: MIT
"""Our command-line flags, each said once: its names, its type, and what it sets.

`--help`, the environment variables, the flags' table of docs/worker.md, the defaults
and the refusals come from here. Names are those that recipes for vLLM, SGLang and
TokenSpeed already use.

A flag that is not given is None in argparse's namespace, so that `args` can tell two
contradictory flags from one flag and a default; the default is that of the field that
the flag sets.
"""

from __future__ import annotations

import argparse
from typing import Any

from dynamo_tokenspeed.protocol import EngineConfig
from dynamo_tokenspeed.worker.flag import Flag
from dynamo_tokenspeed.worker.flag_types import (
    boolean,
    generation_override,
    names,
    natural_int,
    one_of,
    positive_int,
    seconds,
    size,
    tokens_per_second,
    whole_int,
)
from dynamo_tokenspeed.worker.worker_args import WorkerArgs

_MODEL = (
    Flag(
        "--model",
        aliases=("--model-path",),
        sets=(WorkerArgs, "model"),
        metavar="DIR",
        help="Directory in the Hugging Face layout, or a hub id (fetched by Dynamo).",
    ),
    Flag(
        "--served-model-name",
        sets=(WorkerArgs, "served_model_names"),
        computed=True,
        default="--model as given",
        parse=names,
        nargs="+",
        metavar="NAME",
        help="Name that clients ask for; more names are aliases (ai-dynamo 1.6).",
    ),
    Flag(
        "--dtype",
        sets=(EngineConfig, "dtype"),
        default="what config.json says",
        parse=one_of("auto", "bfloat16", "float32"),
        help="auto | bfloat16 | float32.",
    ),
    Flag(
        "--quantization",
        served=("none", "None"),
        why="this version serves unquantized weights only; give a bf16 or fp32 checkpoint and "
        "leave the flag out",
        help="Only 'none' in this version: weights are served in --dtype.",
    ),
    Flag(
        "--trust-remote-code",
        served=(True, False),
        parse=boolean,
        help="A permission that this worker never uses: models are its own code, and no Python "
        "file of a checkpoint is run. Accepted so that recipes stay as they are.",
    ),
)

_CAPACITY = (
    Flag(
        "--max-model-len",
        aliases=("--context-length",),
        sets=(EngineConfig, "max_model_len"),
        default="the model's own limit",
        parse=positive_int,
        metavar="TOKENS",
        help="Longest sequence, prompt and answer together.",
    ),
    Flag(
        "--max-num-seqs",
        sets=(EngineConfig, "max_num_seqs"),
        parse=positive_int,
        metavar="N",
        help="Most sequences that run at once.",
    ),
    Flag(
        "--max-num-batched-tokens",
        sets=(EngineConfig, "max_num_batched_tokens"),
        default="or more where --max-num-seqs or --chunked-prefill-size asks for it",
        parse=positive_int,
        metavar="TOKENS",
        help="Most tokens of one step, prefill and decode together.",
    ),
    Flag(
        "--chunked-prefill-size",
        sets=(EngineConfig, "chunked_prefill_size"),
        default="or a whole step if that is less",
        parse=positive_int,
        metavar="TOKENS",
        help="Most prompt tokens of one request in one step.",
    ),
    Flag(
        "--min-tps-per-user",
        sets=(EngineConfig, "min_tps_per_user"),
        default="no floor",
        parse=tokens_per_second,
        metavar="TPS",
        help="Tokens/s that every decoding user keeps: prefill chunks shrink and admission waits "
        "where a step would last longer than that allows.",
    ),
    Flag(
        "--block-size",
        aliases=("--page-size",),
        sets=(EngineConfig, "page_size"),
        parse=positive_int,
        metavar="TOKENS",
        help="Tokens of a KV page: what the prefix cache and the router reuse.",
    ),
    Flag(
        "--num-pages",
        sets=(EngineConfig, "num_pages"),
        default="from --kv-cache-memory, or from the free memory",
        parse=positive_int,
        metavar="N",
        help="KV pages in all.",
    ),
    Flag(
        "--kv-cache-memory",
        sets=(EngineConfig, "kv_cache_bytes"),
        default="from the free memory",
        parse=size,
        metavar="SIZE",
        help="Memory for KV pages, such as 2GiB.",
    ),
    Flag(
        "--kv-offloading-size",
        sets=(EngineConfig, "kv_offloading_bytes"),
        default="none",
        parse=size,
        metavar="SIZE",
        help="Host memory for cached KV pages that no longer fit, such as 16GiB; a prefix found "
        "there is loaded, not computed.",
    ),
    Flag(
        "--kv-cache-dtype",
        served=("auto",),
        why="this version's KV cache has the model's dtype; give auto or leave the flag out",
        help="Only 'auto' in this version: the KV cache has --dtype.",
    ),
    Flag(
        "--gpu-memory-utilization",
        served=(),
        why="this version serves on the CPU; say with --kv-cache-memory or --num-pages how large "
        "the KV cache is",
        metavar="FRACTION",
        help="For GPUs, which this version does not serve on: give --kv-cache-memory.",
    ),
    Flag(
        "--enable-prefix-caching",
        sets=(EngineConfig, "enable_prefix_caching"),
        parse=boolean,
        help="Reuse KV pages of equal prefixes.",
    ),
)

_EXECUTION = (
    Flag(
        "--device",
        served=("cpu", "auto"),
        why="this version serves on the CPU only; give --device cpu or leave the flag out",
        help="Only 'cpu' in this version ('auto' chooses it).",
    ),
    Flag(
        "--num-threads",
        sets=(EngineConfig, "num_threads"),
        default="the CPUs that this process may use, or the CPU quota of its cgroup (rounded down) "
        "where that is less",
        parse=positive_int,
        metavar="N",
        help="CPU threads of the engine process.",
    ),
    Flag(
        "--overlap-schedule",
        sets=(EngineConfig, "overlap_schedule"),
        default="on for cuda, off on cpu, where the host is the device",
        parse=boolean,
        help="Plan and launch a step before the tokens of the one before it are read, so that the "
        "device never waits for the host; the tokens are the same.",
    ),
    Flag(
        "--deterministic",
        sets=(EngineConfig, "absorb_from"),
        computed=True,
        default="off",
        parse=boolean,
        help="An answer has the bits of a cold run whatever the cache holds, even where tokens "
        "that were generated stand in a prompt. The same as --absorb-from 0.",
    ),
    Flag(
        "--absorb-from",
        sets=(EngineConfig, "absorb_from"),
        parse=natural_int,
        metavar="POSITION",
        help="Latent attention of prompt tokens: expanded before this position, cheap for long "
        "prompts, and absorbed from it on, cheap for an agent's next turn.",
    ),
    Flag(
        "--attention-backend",
        sets=(EngineConfig, "attention_backend"),
        default="the registry's choice",
        metavar="NAME",
        help="Kernel backend for attention.",
    ),
    Flag(
        "--moe-backend",
        sets=(EngineConfig, "moe_backend"),
        default="the registry's choice",
        metavar="NAME",
        help="Kernel backend for the experts.",
    ),
    Flag(
        "--tensor-parallel-size",
        aliases=(
            "--tp-size",
            "-tp",
        ),
        served=(1,),
        why="this version serves one rank; leave the flag out and start one worker per replica",
        parse=positive_int,
        metavar="N",
        help="Only 1 in this version: a worker serves one rank.",
    ),
    Flag(
        "--data-parallel-size",
        aliases=(
            "--dp-size",
            "-dp",
        ),
        served=(1,),
        why="this version serves one rank; start one worker per replica, the router knows them all",
        parse=positive_int,
        metavar="N",
        help="Only 1 in this version: start one worker per replica, the router knows them all.",
    ),
    Flag(
        "--enable-expert-parallel",
        served=(False,),
        why="experts are spread over the ranks of a worker, and this version has one rank; leave "
        "the flag out",
        parse=boolean,
        help="Spreads experts over ranks, of which this version has one: refused.",
    ),
    Flag(
        "--disaggregation-mode",
        served=("agg",),
        why="this version's workers prefill and decode; give agg or leave the flag out",
        help="Only 'agg' in this version: prefill and decode in one worker.",
    ),
)

_SERVING = (
    Flag(
        "--kv-events-config",
        sets=(WorkerArgs, "kv_events"),
        computed=True,
        default="on while prefix caching is on, at a free local port",
        metavar="JSON",
        help='KV events for the router, e.g. {"enable_kv_cache_events": true, "publisher": "zmq", '
        '"endpoint": "tcp://127.0.0.1:*", "topic": ""}.',
    ),
    Flag(
        "--max-queued-requests",
        sets=(WorkerArgs, "max_queued_requests"),
        default="no limit",
        parse=natural_int,
        metavar="N",
        help="Most requests that wait for a slot or for pages; one more is refused at once, with "
        "503.",
    ),
    Flag(
        "--request-timeout",
        sets=(WorkerArgs, "request_timeout"),
        default="never",
        parse=seconds,
        metavar="SECONDS",
        help="Ends a request that has been at this worker for so long: 503 if it has no token by "
        "then, else 400.",
    ),
    Flag(
        "--drain-timeout",
        sets=(WorkerArgs, "drain_seconds"),
        parse=seconds,
        metavar="SECONDS",
        help="On SIGTERM, how long running streams may go on before the frontend is told to "
        "migrate them. Comes after DYN_GRACEFUL_SHUTDOWN_GRACE_PERIOD_SECS.",
    ),
    Flag(
        "--step-timeout",
        sets=(WorkerArgs, "step_timeout"),
        parse=seconds,
        metavar="SECONDS",
        help="Ends this worker when its engine gives no sign of life for so long: the process is "
        "stopped, a step does not return, or the engine hangs outside of one. Its streams go on "
        "at other workers. A step may take longer: native kernels give signs while they compute; "
        "raise it where other backends (torch) need longer for one step. 0: never.",
    ),
    Flag(
        "--generation-config",
        sets=(WorkerArgs, "generation_config"),
        metavar="SOURCE",
        help="Defaults of temperature, top_p, top_k, min_p and repetition_penalty, and a limit "
        "(max_new_tokens) of every answer: auto (generation_config.json of the model), vllm "
        "(neutral ones), or a directory with such a file.",
    ),
    Flag(
        "--override-generation-config",
        sets=(WorkerArgs, "override_generation_config"),
        parse=generation_override,
        metavar="JSON",
        help='Defaults that win over those, e.g. {"temperature": 0.6}.',
    ),
    Flag(
        "--seed",
        sets=(WorkerArgs, "seed"),
        default="from the system",
        parse=whole_int,
        metavar="N",
        help="Fixes the seeds that requests without one draw.",
    ),
    Flag(
        "--log-level",
        sets=(EngineConfig, "log_level"),
        parse=one_of("debug", "info", "warning", "error"),
        help="debug | info | warning | error, of the engine process. This process logs as DYN_LOG "
        "says.",
    ),
)

GROUPS = {"Model": _MODEL, "Capacity": _CAPACITY, "Execution": _EXECUTION, "Serving": _SERVING}
FLAGS = tuple(flag for group in GROUPS.values() for flag in group)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Raises `UsageError` when an environment variable has a bad value."""
    for title, flags in GROUPS.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            flag.add_to(group)


def fields_given(flags: argparse.Namespace, of: type) -> dict[str, Any]:
    """The fields of this class that flags set, with what was given; computed ones left out."""
    given = {flag.sets: flag.given(flags) for flag in FLAGS if flag.sets and not flag.computed}
    return {name: value for (cls, name), value in given.items() if cls is of and value is not None}
