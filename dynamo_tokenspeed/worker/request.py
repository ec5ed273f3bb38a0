# SPDX-License-Identifier: MIT
"""One request checked once, at the door: Dynamo's dict in, a `Submit` out.

Every refusal is a sentence with the value, the limit and the way out, raised as
`InvalidArgument`, which the frontend answers with a 400. Unset fields arrive as
None. Where OpenAI's API leaves a choice, ours is:

- a sampling field that is unset has the model's default (`generation_config`), else
  the neutral one; a `temperature` below 1e-5 is greedy.
- `max_tokens` unset is what the context leaves room for; larger than that, the
  stream ends with `length` at the context limit.
- a stop token that can never be sampled is no stop: padded vocabularies have them.
- `top_k` 0 or -1 is off.
- without a `seed` a request draws one at random.
"""

from __future__ import annotations

import random
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from dynamo.llm.exceptions import InvalidArgument

from dynamo_tokenspeed.protocol import Capacity, Submit
from dynamo_tokenspeed.worker.generation_config import NEUTRAL, GenerationDefaults
from dynamo_tokenspeed.worker.sampling_fields import integer, logit_bias, number, sampling_params
from dynamo_tokenspeed.worker.token_table import TokenTable

MAX_STOP_TOKEN_IDS = 256  # the model's, and as many of the request
LOGIT_BIAS_HEADER = "logit-bias"  # sent as x-dynamo-meta-logit-bias
_INT32 = 2**31 - 1
_INT64 = 2**63 - 1

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
    table: TokenTable  # ids that a request may name and its answer may have
    defaults: GenerationDefaults = NEUTRAL

    @classmethod
    def of(cls, capacity: Capacity, table: TokenTable, defaults: GenerationDefaults) -> Limits:
        return cls(capacity.max_model_len, table.within(capacity.vocab_size), defaults)


def check_request(
    request: Mapping[str, Any],
    request_id: int,
    limits: Limits,
    seeds: random.Random,
    metadata: Mapping[str, str] | None = None,
) -> Submit:
    """Raises `InvalidArgument` with one sentence for anything this worker cannot serve.

    `metadata` are the request's `x-dynamo-meta-*` headers.
    """
    _refuse_what_is_not_served(request)
    sampling = limits.defaults.fill_in(request.get("sampling_options") or {})
    stop = request.get("stop_conditions") or {}
    output = request.get("output_options") or {}
    _refuse_unknown("sampling_options", sampling, _SAMPLING_FIELDS)
    _refuse_unknown("stop_conditions", stop, _STOP_FIELDS)
    _refuse_unknown("output_options", output, _OUTPUT_FIELDS)
    _refuse_guided_decoding(sampling.get("guided_decoding"))
    _refuse_several_choices(sampling)

    prompt = _prompt(request.get("token_ids"), limits)
    room = limits.max_model_len - len(prompt)
    max_tokens = integer("max_tokens", stop.get("max_tokens"), default=room)
    if max_tokens < 1:
        raise InvalidArgument(
            f"max_tokens is {max_tokens}, but a request generates at least one token: "
            "give max_tokens 1 or more, or leave it out"
        )
    min_tokens = integer("min_tokens", stop.get("min_tokens"), default=0)
    if not 0 <= min_tokens <= max_tokens:
        raise InvalidArgument(
            f"min_tokens is {min_tokens}, but it must lie between 0 and max_tokens ({max_tokens})"
        )
    if stop.get("max_thinking_tokens") is not None:
        raise InvalidArgument(
            "max_thinking_tokens is not served by this version: leave it out and bound the "
            "answer with max_tokens"
        )
    most = min(room, limits.defaults.max_tokens or room)
    min_tokens = min(min_tokens, most)
    eos = _token_set(
        "eos_token_ids",
        limits,
        limits.defaults.eos_token_ids,
        request.get("eos_token_ids"),
        stop.get("stop_token_ids_hidden"),
    )
    stops = _token_set(
        "stop_token_ids", limits, stop.get("stop_token_ids"), stop.get("stop_token_ids_visible")
    )
    ignore_eos = bool(stop.get("ignore_eos"))
    if min_tokens > 0:
        _refuse_nothing_but_stops(stops if ignore_eos else {*eos, *stops}, limits)
    bias = sampling.get("logit_bias")
    if bias is None and metadata:
        bias = metadata.get(LOGIT_BIAS_HEADER)
    routing = request.get("routing") or {}
    return Submit(
        request_id=request_id,
        token_ids=prompt.tobytes(),
        max_tokens=min(max_tokens, most),
        min_tokens=min_tokens,
        eos_token_ids=sorted(eos),
        stop_token_ids=sorted(stops),
        ignore_eos=ignore_eos,
        cache_salt=str(routing.get("cache_salt") or ""),
        priority=_priority(routing.get("priority")),
        sampling=sampling_params(sampling, output, limits.table.size, seeds),
        logit_bias=logit_bias(bias, limits.table.size),
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
    if low < 0 or high >= limits.table.size:
        raise InvalidArgument(
            f"token id {low if low < 0 else high} is outside the vocabulary "
            f"(0 to {limits.table.size - 1}): tokenize the prompt with this model's tokenizer"
        )
    return prompt


def _refuse_what_is_not_served(request: Mapping[str, Any]) -> None:
    for name in ("multi_modal_data", "mm_processor_kwargs", "media_io_kwargs"):
        if request.get(name):
            raise InvalidArgument(
                f"the request carries images or other media ({name}), but this worker serves "
                "text only: leave them out"
            )
    extra = request.get("extra_args") or {}
    unserved = dict(extra.get("sampling_options") or {})
    if unserved.get("detokenize") is True:  # which the frontend does anyway
        del unserved["detokenize"]
    extensions = extra.get("nvext") or {}
    for name in ("metadata_upload", "routed_experts"):
        if extensions.get(name) or name in (extensions.get("extra_fields") or ()):
            unserved[name] = True
    for name in unserved:
        raise InvalidArgument(f"{name} is not served by this version: leave it out")
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
        count = integer(name, sampling.get(name), default=1)
        if count != 1:
            raise InvalidArgument(
                f"{name} is {count}, but one request has one choice here: send {max(count, 2)} "
                "requests, their common prompt is computed once"
                if count > 1
                else f"{name} is {count}, but it must be 1"
            )
    if sampling.get("use_beam_search"):
        raise InvalidArgument("use_beam_search is not served: sample instead")
    if number("length_penalty", sampling.get("length_penalty"), 1.0) != 1.0:
        raise InvalidArgument("length_penalty belongs to beam search, which is not served")


def _refuse_unknown(where: str, options: Mapping[str, Any], known: frozenset[str]) -> None:
    for name, value in options.items():
        if name not in known and value is not None:
            raise InvalidArgument(
                f"{where}.{name} is not known to this worker: leave it out "
                f"(known: {', '.join(sorted(known))})"
            )


def _token_set(name: str, limits: Limits, *lists: Any) -> set[int]:
    """The ids of `lists` that can be sampled at all: the others never stop anything."""
    token_ids = {token_id for ids in lists for token_id in ids or ()}
    for token_id in token_ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int):
            raise InvalidArgument(f"{name} holds {token_id!r}, but token ids are integers")
        if not 0 <= token_id <= _INT32:
            raise InvalidArgument(f"{name} holds {token_id}, which is no token id")
    if len(token_ids) > MAX_STOP_TOKEN_IDS:
        raise InvalidArgument(
            f"{name} holds {len(token_ids)} token ids, but at most {MAX_STOP_TOKEN_IDS} are served"
        )
    return {token_id for token_id in token_ids if token_id in limits.table}


def _refuse_nothing_but_stops(stops: set[int], limits: Limits) -> None:
    if len(stops) >= len(limits.table):
        raise InvalidArgument(
            f"min_tokens forbids {len(stops)} stop tokens at first, but the vocabulary has only "
            f"{len(limits.table)} tokens: leave out min_tokens, or give fewer stop_token_ids"
        )


def _priority(value: Any) -> int:
    priority = integer("priority", value, default=0)
    if abs(priority) > _INT64:
        raise InvalidArgument(
            f"priority is {priority}, but it must lie between {-_INT64} and {_INT64}"
        )
    return priority
