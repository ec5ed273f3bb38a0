# SPDX-License-Identifier: MIT
"""One request checked once, at the door: Dynamo's dict in, a `Submit` out.

Every refusal is a sentence with the value, the limit and the way out, raised as
`InvalidArgument`, which the frontend answers with a 400. Unset fields arrive as
None. Where OpenAI's API leaves a choice, ours is:

- `temperature` unset is 1.0; below 1e-5 it is greedy.
- `max_tokens` unset is what the context leaves room for; larger than that, the
  stream ends with `length` at the context limit.
- `top_k` 0 or -1 is off.
- without a `seed` a request draws one at random.
"""

from __future__ import annotations

import math
import random
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from dynamo.llm.exceptions import InvalidArgument

from dynamo_tokenspeed.protocol import Capacity, SamplingParams, Submit
from dynamo_tokenspeed.protocol.sampling import NO_LOGPROBS, NO_TOP_K

MAX_TOP_LOGPROBS = 20  # OpenAI's own limit
_GREEDY_BELOW = 1e-5
_INT32 = 2**31 - 1

_SAMPLING_FIELDS = frozenset(
    {
        *("n", "best_of", "use_beam_search", "length_penalty"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty"),
        *("temperature", "top_p", "top_k", "min_p", "seed", "logit_bias"),
        *("include_stop_str_in_output", "guided_decoding"),
    }
)
_STOP_FIELDS = frozenset(
    {
        *("max_tokens", "min_tokens", "ignore_eos", "stop", "max_thinking_tokens"),
        *("stop_token_ids", "stop_token_ids_visible", "stop_token_ids_hidden"),
    }
)
_OUTPUT_FIELDS = frozenset(
    {
        *("logprobs", "prompt_logprobs", "skip_special_tokens", "formatted_prompt"),
        "return_tokens_as_token_ids",
    }
)


@dataclass(frozen=True)
class Limits:
    """What this worker's engine can serve."""

    max_model_len: int
    vocab_size: int

    @classmethod
    def of(cls, capacity: Capacity) -> Limits:
        return cls(capacity.max_model_len, capacity.vocab_size)


def check_request(
    request: Mapping[str, Any], request_id: int, limits: Limits, seeds: random.Random
) -> Submit:
    """Raises `InvalidArgument` with one sentence for anything this worker cannot serve."""
    _refuse_what_is_not_served(request)
    sampling = request.get("sampling_options") or {}
    stop = request.get("stop_conditions") or {}
    output = request.get("output_options") or {}
    _refuse_unknown("sampling_options", sampling, _SAMPLING_FIELDS)
    _refuse_unknown("stop_conditions", stop, _STOP_FIELDS)
    _refuse_unknown("output_options", output, _OUTPUT_FIELDS)
    _refuse_guided_decoding(sampling.get("guided_decoding"))
    _refuse_several_choices(sampling)

    prompt = _prompt(request.get("token_ids"), limits)
    room = limits.max_model_len - len(prompt)
    max_tokens = _integer("max_tokens", stop.get("max_tokens"), default=room)
    if max_tokens < 1:
        raise InvalidArgument(
            f"max_tokens is {max_tokens}, but a request generates at least one token: "
            "give max_tokens 1 or more, or leave it out"
        )
    min_tokens = _integer("min_tokens", stop.get("min_tokens"), default=0)
    if not 0 <= min_tokens <= max_tokens:
        raise InvalidArgument(
            f"min_tokens is {min_tokens}, but it must lie between 0 and max_tokens ({max_tokens})"
        )
    if stop.get("max_thinking_tokens") is not None:
        raise InvalidArgument(
            "max_thinking_tokens is not served by this version: leave it out and bound the "
            "answer with max_tokens"
        )
    eos = {*(request.get("eos_token_ids") or ()), *(stop.get("stop_token_ids_hidden") or ())}
    wanted_stops = {
        *(stop.get("stop_token_ids") or ()),
        *(stop.get("stop_token_ids_visible") or ()),
    }
    routing = request.get("routing") or {}
    return Submit(
        request_id=request_id,
        token_ids=prompt.tobytes(),
        max_tokens=min(max_tokens, room),
        min_tokens=min(min_tokens, room),
        eos_token_ids=_token_set("eos_token_ids", eos),
        stop_token_ids=_token_set("stop_token_ids", wanted_stops),
        ignore_eos=bool(stop.get("ignore_eos")),
        cache_salt=str(routing.get("cache_salt") or ""),
        priority=_integer("priority", routing.get("priority"), default=0),
        sampling=_sampling(sampling, output, limits, seeds),
        logit_bias=_logit_bias(sampling.get("logit_bias"), limits),
    )


def _prompt(token_ids: Any, limits: Limits) -> array[int]:
    """The prompt as int32, from a list or from 1.6's packed little-endian buffer."""
    try:
        if isinstance(token_ids, bytes | bytearray | memoryview):
            prompt = array("i", bytes(token_ids))
            if sys.byteorder != "little":
                prompt.byteswap()
        else:
            prompt = array("i", token_ids or ())
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(f"token_ids must be 32-bit integers: {error}") from None
    if not prompt:
        raise InvalidArgument("the prompt is empty: send at least one token")
    if len(prompt) >= limits.max_model_len:
        raise InvalidArgument(
            f"the prompt has {len(prompt)} tokens, but this worker serves a context of at most "
            f"{limits.max_model_len} tokens, one of them generated (--max-model-len): "
            "send a shorter prompt"
        )
    values = np.frombuffer(prompt, np.int32)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= limits.vocab_size:
        raise InvalidArgument(
            f"token id {low if low < 0 else high} is outside the vocabulary "
            f"(0 to {limits.vocab_size - 1}): tokenize the prompt with this model's tokenizer"
        )
    return prompt


def _sampling(
    options: Mapping[str, Any], output: Mapping[str, Any], limits: Limits, seeds: random.Random
) -> SamplingParams:
    temperature = _number("temperature", options.get("temperature"), 1.0)
    if temperature < 0:
        raise InvalidArgument(
            f"temperature is {temperature:g}, but it must be 0 (greedy) or larger"
        )
    top_p = _number("top_p", options.get("top_p"), 1.0)
    if not 0 < top_p <= 1:
        raise InvalidArgument(f"top_p is {top_p:g}, but it must be above 0 and at most 1 (off)")
    min_p = _number("min_p", options.get("min_p"), 0.0)
    if not 0 <= min_p <= 1:
        raise InvalidArgument(f"min_p is {min_p:g}, but it must lie between 0 (off) and 1")
    top_k = _integer("top_k", options.get("top_k"), default=NO_TOP_K)
    if top_k < -1:
        raise InvalidArgument(f"top_k is {top_k}, but it must be positive, or 0 or -1 for off")
    repetition_penalty = _number("repetition_penalty", options.get("repetition_penalty"), 1.0)
    if repetition_penalty <= 0:
        raise InvalidArgument(
            f"repetition_penalty is {repetition_penalty:g}, but it must be above 0 (1 is off)"
        )
    seed = options.get("seed")
    return SamplingParams(
        seed=_integer("seed", seed, default=0) % 2**64
        if seed is not None
        else seeds.getrandbits(64),
        temperature=temperature if temperature >= _GREEDY_BELOW else 0.0,
        top_p=top_p,
        top_k=NO_TOP_K if top_k <= 0 or top_k >= limits.vocab_size else top_k,
        min_p=min_p,
        presence_penalty=_penalty("presence_penalty", options),
        frequency_penalty=_penalty("frequency_penalty", options),
        repetition_penalty=repetition_penalty,
        logprobs=_logprobs(output, limits),
    )


def _penalty(name: str, options: Mapping[str, Any]) -> float:
    value = _number(name, options.get(name), 0.0)
    if not -2 <= value <= 2:
        raise InvalidArgument(f"{name} is {value:g}, but it must lie between -2 and 2 (0 is off)")
    return value


def _logprobs(output: Mapping[str, Any], limits: Limits) -> int:
    if output.get("prompt_logprobs") is not None:
        raise InvalidArgument(
            "prompt_logprobs is not served by this version: leave it out "
            "(logprobs of the generated tokens are)"
        )
    count = _integer("logprobs", output.get("logprobs"), default=NO_LOGPROBS)
    most = min(MAX_TOP_LOGPROBS, limits.vocab_size)
    if count > most:
        raise InvalidArgument(f"top_logprobs is {count}, but at most {most} are served")
    if count < NO_LOGPROBS:
        raise InvalidArgument(f"top_logprobs is {count}, but it must lie between 0 and {most}")
    return count


def _logit_bias(value: Any, limits: Limits) -> dict[int, float]:
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidArgument("logit_bias must map token ids to numbers between -100 and 100")
    bias = {}
    for key, amount in value.items():
        try:
            token_id = int(key)
        except (TypeError, ValueError):
            raise InvalidArgument(f"logit_bias names {key!r}, which is no token id") from None
        if not 0 <= token_id < limits.vocab_size:
            raise InvalidArgument(
                f"logit_bias names token id {token_id}, which is outside the vocabulary "
                f"(0 to {limits.vocab_size - 1})"
            )
        bias[token_id] = _number(f"logit_bias[{token_id}]", amount, 0.0)
        if not -100 <= bias[token_id] <= 100:
            raise InvalidArgument(
                f"logit_bias[{token_id}] is {bias[token_id]:g}, "
                "but it must lie between -100 and 100"
            )
    return bias


def _refuse_what_is_not_served(request: Mapping[str, Any]) -> None:
    if request.get("multi_modal_data"):
        raise InvalidArgument(
            "the request carries images or other media, but this worker serves text only: "
            "leave them out"
        )
    routing = request.get("routing") or {}
    if routing.get("lora_name"):
        raise InvalidArgument(
            f"the request asks for LoRA adapter {routing['lora_name']!r}, but this version "
            "serves no adapters: ask for the base model"
        )
    for name in ("prefill_result", "bootstrap_info"):
        if request.get(name) is not None:
            raise InvalidArgument(
                f"the request carries {name} of a prefill worker, but this worker serves "
                "aggregated (prefill and decode together): register no prefill workers beside it"
            )


def _refuse_guided_decoding(guided: Any) -> None:
    """Structural tags are advertised off (`dynamo_versions`): what comes is a real constraint."""
    if not guided:
        return
    constraints = [name for name, value in guided.items() if value is not None]
    if constraints:
        raise InvalidArgument(
            f"guided decoding ({', '.join(constraints)}) is not served by this version: leave out "
            "response_format and use tool_choice 'auto' or 'none'"
        )


def _refuse_several_choices(sampling: Mapping[str, Any]) -> None:
    for name in ("n", "best_of"):
        count = _integer(name, sampling.get(name), default=1)
        if count != 1:
            raise InvalidArgument(
                f"{name} is {count}, but one request has one choice here: send {max(count, 2)} "
                "requests, their common prompt is computed once"
                if count > 1
                else f"{name} is {count}, but it must be 1"
            )
    if sampling.get("use_beam_search"):
        raise InvalidArgument("use_beam_search is not served: sample instead")
    if _number("length_penalty", sampling.get("length_penalty"), 1.0) != 1.0:
        raise InvalidArgument("length_penalty belongs to beam search, which is not served")


def _refuse_unknown(where: str, options: Mapping[str, Any], known: frozenset[str]) -> None:
    for name, value in options.items():
        if name not in known and value is not None:
            raise InvalidArgument(
                f"{where}.{name} is not known to this worker: leave it out "
                f"(known: {', '.join(sorted(known))})"
            )


def _token_set(name: str, token_ids: set[Any]) -> list[int]:
    """Ids outside the vocabulary are kept: they are never sampled, so they never stop."""
    for token_id in token_ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int):
            raise InvalidArgument(f"{name} holds {token_id!r}, but token ids are integers")
        if not 0 <= token_id <= _INT32:
            raise InvalidArgument(f"{name} holds {token_id}, which is no token id")
    return sorted(token_ids)


def _number(name: str, value: Any, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(f"{name} is {value!r}, but it must be a number")
    if not math.isfinite(value):
        raise InvalidArgument(f"{name} is {value}, but it must be a finite number")
    return float(value)


def _integer(name: str, value: Any, *, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{name} is {value!r}, but it must be a whole number")
    return int(value)
