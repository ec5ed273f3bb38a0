# SPDX-License-Identifier: MIT
"""A model's defaults for what a request leaves out: `generation_config.json`, as vLLM reads it.

What the user gives wins. `max_new_tokens` is not a default but a limit of every answer, and
`eos_token_id` ends answers whatever the sampling defaults come from.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynamo.llm.exceptions import InvalidArgument

from dynamo_tokenspeed.worker.errors import UsageError
from dynamo_tokenspeed.worker.sampling_fields import integer, sampling_params

FILE = "generation_config.json"
SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
MAX_NEW_TOKENS = "max_new_tokens"
_ANY_VOCABULARY = 2**31


@dataclass(frozen=True)
class GenerationDefaults:
    """What holds for a request that is silent."""

    sampling: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None  # of any answer; None: the context is the limit
    eos_token_ids: tuple[int, ...] = ()

    def fill_in(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """`options` with the defaults in place of what is unset."""
        if not self.sampling:
            return options
        given = {name: value for name, value in options.items() if value is not None}
        return {**self.sampling, **given}

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name, value in self.sampling.items()]
        if self.max_tokens is not None:
            parts.append(f"at most {self.max_tokens} tokens")
        return ", ".join(parts) or "neutral"


NEUTRAL = GenerationDefaults()


def read_generation_defaults(
    model: str, source: str, override: Mapping[str, Any]
) -> GenerationDefaults:
    """`source` is auto (the model's directory), vllm (neutral) or a directory.

    Raises `UsageError` with one sentence.
    """
    elsewhere = source not in ("auto", "vllm")
    path = Path(source if elsewhere else model) / FILE
    if elsewhere and not path.is_file():
        raise UsageError(
            f"--generation-config {source}: there is no {FILE} in it; give a directory that "
            "holds one, or auto, or vllm"
        )
    config = _read(path)
    values = {
        name: value
        for name in (*SAMPLING_FIELDS, MAX_NEW_TOKENS)
        if source != "vllm" and (value := config.get(name)) is not None
    }
    ways_out = "correct it, or give --generation-config vllm"
    sampling, max_tokens = _checked(values, str(path), ways_out)
    own, limit = _checked(override, "--override-generation-config", "correct it")
    return GenerationDefaults(
        sampling | own, limit or max_tokens, _eos_token_ids(config.get("eos_token_id"), path)
    )


def parse_override(text: str) -> dict[str, Any]:
    """The object in `--override-generation-config`. Raises ValueError with half a sentence."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it must be a JSON object")
    known = (*SAMPLING_FIELDS, MAX_NEW_TOKENS)
    for name in value:
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
    return value


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: it cannot be read: {error}; correct or remove it") from None
    if not isinstance(config, dict):
        raise UsageError(f"{path}: it must hold a JSON object; correct or remove it")
    return config


def _checked(
    values: Mapping[str, Any], where: str, way_out: str
) -> tuple[dict[str, Any], int | None]:
    """Sampling fields and the limit of tokens, held to the ranges that requests are held to."""
    sampling = {name: values[name] for name in SAMPLING_FIELDS if values.get(name) is not None}
    try:
        sampling_params(sampling, {}, _ANY_VOCABULARY, random.Random())
        limit = integer(MAX_NEW_TOKENS, values.get(MAX_NEW_TOKENS), default=0)
        if limit < 1 and values.get(MAX_NEW_TOKENS) is not None:
            raise InvalidArgument(f"{MAX_NEW_TOKENS} is {limit}, but it must be at least 1")
    except InvalidArgument as error:
        raise UsageError(f"{where}: {error}; {way_out}") from None
    return sampling, limit or None


def _eos_token_ids(value: Any, path: Path) -> tuple[int, ...]:
    token_ids = value if isinstance(value, list) else [] if value is None else [value]
    for token_id in token_ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0:
            raise UsageError(
                f"{path}: eos_token_id holds {token_id!r}, which is no token id; correct it"
            )
    return tuple(token_ids)
