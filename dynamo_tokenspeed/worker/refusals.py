# SPDX-License-Identifier: MIT
"""Dynamo's own flags that this version cannot honour: refused by name, never ignored."""

from __future__ import annotations

import argparse
import os
from typing import Any

from dynamo_tokenspeed.worker.errors import UsageError


def refuse_dynamos(flags: argparse.Namespace) -> None:
    """Raises `UsageError` for the first flag that asks for something we do not have."""
    text_only = "this worker serves text only; leave it out"
    unguided = "guided decoding is not served by this version; leave it out"
    for name, neutral, why in (
        ("fpm_trace", (None, False), "this version records no forward-pass metrics; leave it out"),
        ("connector", (None, [], ["none"], ["null"]), "this engine has no KV connectors"),
        ("multimodal_embedding_cache_capacity_gb", (None, 0), text_only),
        ("multimodal_embedding_cache_publisher", (None, False), text_only),
        ("output_modalities", (None, [], ["text"]), text_only),
        ("media_output_fs_url", (None, "file:///tmp/dynamo_media"), text_only),
        ("media_output_http_url", (None,), text_only),
        ("dyn_structural_tag", (None, False), unguided),
        ("dyn_enable_structural_tag", (None, False), unguided),
        ("dyn_structural_tag_scope", (None, "auto"), unguided),  # of 1.4, as the next
        ("dyn_structural_tag_schema", (None, "auto"), unguided),
    ):
        value = getattr(flags, name, None)
        if value not in neutral:
            shown = _flag(name) if value is True else f"{_flag(name)} {_shown(value)}"
            raise UsageError(f"{shown}: {why}")


def _flag(name: str) -> str:
    """The flag, with its variable when that is where the value came from."""
    flag = "--" + name.replace("_", "-")
    variable = "DYN_" + name.removeprefix("dyn_").upper()
    return f"{flag} ({variable})" if variable in os.environ else flag


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
