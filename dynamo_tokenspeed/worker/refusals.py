# SPDX-License-Identifier: MIT
"""Flags that recipes use and this version cannot honour: refused by name, never ignored."""

from __future__ import annotations

import argparse
import os
from typing import Any

from dynamo_tokenspeed.worker.errors import UsageError


def refuse_what_is_not_served(flags: argparse.Namespace) -> None:
    """Raises `UsageError` for the first flag that asks for something we do not have."""
    _refuse_ours(flags)
    _refuse_dynamos(flags)


def _refuse_ours(flags: argparse.Namespace) -> None:
    if flags.device not in (None, "cpu", "auto"):
        raise UsageError(
            f"--device {flags.device}: this version serves on the CPU only; "
            "give --device cpu or leave the flag out"
        )
    if flags.quantization not in (None, "none", "None"):
        raise UsageError(
            f"--quantization {flags.quantization}: this version serves unquantized weights only; "
            "give a bf16 or fp32 checkpoint and leave the flag out"
        )
    if flags.kv_cache_dtype not in (None, "auto"):
        raise UsageError(
            f"--kv-cache-dtype {flags.kv_cache_dtype}: this version's KV cache has the model's "
            "dtype; give auto or leave the flag out"
        )
    if flags.tensor_parallel_size not in (None, 1):
        raise UsageError(
            f"--tensor-parallel-size {flags.tensor_parallel_size}: this version serves one rank; "
            "leave the flag out and start one worker per replica"
        )
    if flags.data_parallel_size not in (None, 1):
        raise UsageError(
            f"--data-parallel-size {flags.data_parallel_size}: this version serves one rank; "
            "start one worker per replica, the router knows them all"
        )
    if flags.enable_expert_parallel:
        raise UsageError(
            "--enable-expert-parallel: experts are spread over the ranks of a worker, and this "
            "version has one rank; leave the flag out"
        )
    if flags.gpu_memory_utilization is not None:
        raise UsageError(
            f"--gpu-memory-utilization {flags.gpu_memory_utilization}: this version serves on the "
            "CPU; say with --kv-cache-memory or --num-pages how large the KV cache is"
        )
    if flags.disaggregation_mode not in (None, "agg"):
        raise UsageError(
            f"--disaggregation-mode {flags.disaggregation_mode}: this version's workers prefill "
            "and decode; give agg or leave the flag out"
        )


def _refuse_dynamos(flags: argparse.Namespace) -> None:
    text_only = "this worker serves text only; leave it out"
    for name, neutral, why in (
        ("fpm_trace", (None, False), "this version records no forward-pass metrics; leave it out"),
        ("connector", (None, [], ["none"], ["null"]), "this engine has no KV connectors"),
        ("multimodal_embedding_cache_capacity_gb", (None, 0), text_only),
        ("multimodal_embedding_cache_publisher", (None, False), text_only),
        ("output_modalities", (None, [], ["text"]), text_only),
        ("media_output_fs_url", (None, "file:///tmp/dynamo_media"), text_only),
        ("media_output_http_url", (None,), text_only),
    ):
        value = getattr(flags, name, None)
        if value not in neutral:
            raise UsageError(f"{_flag(name)} {_shown(value)}: {why}")
    for name in ("dyn_structural_tag", "dyn_enable_structural_tag"):
        if getattr(flags, name, None) not in (None, False):
            raise UsageError(
                f"{_flag(name)}: guided decoding is not served by this version; leave it out"
            )
    for name in ("dyn_structural_tag_scope", "dyn_structural_tag_schema"):  # of 1.4
        if getattr(flags, name, None) not in (None, "auto"):
            raise UsageError(
                f"{_flag(name)}: it shapes structural tags, and guided decoding is not served by "
                "this version; leave it out"
            )


def _flag(name: str) -> str:
    """The flag, with its variable when that is where the value came from."""
    flag = "--" + name.replace("_", "-")
    variable = "DYN_" + name.removeprefix("dyn_").upper()
    return f"{flag} ({variable})" if variable in os.environ else flag


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
