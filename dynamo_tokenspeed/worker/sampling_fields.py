# SPDX-License-Identifier: MIT
"""A request's sampling fields: each checked against its range, and given its default.

The same checks hold for a request and for the model's defaults (`generation_config`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from dynamo.llm.exceptions import InvalidArgument

from dynamo_tokenspeed.protocol import SamplingParams
from dynamo_tokenspeed.protocol.sampling import NO_LOGPROBS, NO_TOP_K

MAX_TOP_LOGPROBS = 20  # OpenAI's own limit
MAX_LOGIT_BIAS = 1024  # entries; each of them costs every step of the request
_GREEDY_BELOW = 1e-5
_LARGEST_FLOAT32 = 3.4e38


def sampling_params(
    options: Mapping[str, Any], output: Mapping[str, Any], vocab_size: int, seeds: random.Random
) -> SamplingParams:
    temperature = number("temperature", options.get("temperature"), 1.0)
    if temperature < 0:
        raise InvalidArgument(
            f"temperature is {temperature:g}, but it must be 0 (greedy) or larger"
        )
    top_p = number("top_p", options.get("top_p"), 1.0)
    if not 0 < top_p <= 1:
        raise InvalidArgument(f"top_p is {top_p:g}, but it must be above 0 and at most 1 (off)")
    min_p = number("min_p", options.get("min_p"), 0.0)
    if not 0 <= min_p <= 1:
        raise InvalidArgument(f"min_p is {min_p:g}, but it must lie between 0 (off) and 1")
    top_k = integer("top_k", options.get("top_k"), default=NO_TOP_K)
    if top_k < -1:
        raise InvalidArgument(f"top_k is {top_k}, but it must be positive, or 0 or -1 for off")
    repetition_penalty = number("repetition_penalty", options.get("repetition_penalty"), 1.0)
    if repetition_penalty <= 0:
        raise InvalidArgument(
            f"repetition_penalty is {repetition_penalty:g}, but it must be above 0 (1 is off)"
        )
    seed = options.get("seed")
    return SamplingParams(
        seed=integer("seed", seed, default=0) % 2**64
        if seed is not None
        else seeds.getrandbits(64),
        temperature=temperature if temperature >= _GREEDY_BELOW else 0.0,
        top_p=top_p,
        top_k=NO_TOP_K if top_k <= 0 or top_k >= vocab_size else top_k,
        min_p=min_p,
        presence_penalty=_penalty("presence_penalty", options),
        frequency_penalty=_penalty("frequency_penalty", options),
        repetition_penalty=repetition_penalty,
        logprobs=_logprobs(output, vocab_size),
    )


def _penalty(name: str, options: Mapping[str, Any]) -> float:
    value = number(name, options.get(name), 0.0)
    if not -2 <= value <= 2:
        raise InvalidArgument(f"{name} is {value:g}, but it must lie between -2 and 2 (0 is off)")
    return value


def _logprobs(output: Mapping[str, Any], vocab_size: int) -> int:
    if output.get("prompt_logprobs") is not None:
        raise InvalidArgument(
            "prompt_logprobs is not served by this version: leave it out "
            "(logprobs of the generated tokens are)"
        )
    count = integer("logprobs", output.get("logprobs"), default=NO_LOGPROBS)
    most = min(MAX_TOP_LOGPROBS, vocab_size)
    if count > most:
        raise InvalidArgument(f"top_logprobs is {count}, but at most {most} are served")
    if count < NO_LOGPROBS:
        raise InvalidArgument(f"top_logprobs is {count}, but it must lie between 0 and {most}")
    return count


def logit_bias(value: Any, vocab_size: int) -> dict[int, float]:
    """From a mapping, or from JSON text: the header's, which is all the frontend lets through."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidArgument(f"logit_bias is no JSON: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidArgument("logit_bias must map token ids to numbers between -100 and 100")
    if len(value) > MAX_LOGIT_BIAS:
        raise InvalidArgument(
            f"logit_bias has {len(value)} entries, but at most {MAX_LOGIT_BIAS} are served"
        )
    bias = {}
    for key, amount in value.items():
        try:
            token_id = int(key)
        except (TypeError, ValueError):
            raise InvalidArgument(f"logit_bias names {key!r}, which is no token id") from None
        if not 0 <= token_id < vocab_size:
            raise InvalidArgument(
                f"logit_bias names token id {token_id}, which is outside the vocabulary "
                f"(0 to {vocab_size - 1})"
            )
        bias[token_id] = number(f"logit_bias[{token_id}]", amount, 0.0)
        if not -100 <= bias[token_id] <= 100:
            raise InvalidArgument(
                f"logit_bias[{token_id}] is {bias[token_id]:g}, "
                "but it must lie between -100 and 100"
            )
    return bias


def number(name: str, value: Any, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(f"{name} is {value!r}, but it must be a number")
    if not abs(value) <= _LARGEST_FLOAT32:
        raise InvalidArgument(f"{name} is {value}, but it must be a finite number")
    return float(value)


def integer(name: str, value: Any, *, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{name} is {value!r}, but it must be a whole number")
    return int(value)
