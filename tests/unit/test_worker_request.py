# SPDX-License-Identifier: MIT
"""What the worker accepts at its door, and the sentence for what it does not."""

from __future__ import annotations

import math
import random
from array import array
from typing import Any

import pytest
from dynamo.llm.exceptions import InvalidArgument

from dynamo_tokenspeed.protocol import Submit
from dynamo_tokenspeed.worker.generation_config import GenerationDefaults
from dynamo_tokenspeed.worker.request import MAX_STOP_TOKEN_IDS, Limits, check_request
from dynamo_tokenspeed.worker.sampling_fields import MAX_LOGIT_BIAS
from dynamo_tokenspeed.worker.token_table import TokenTable

LIMITS = Limits(max_model_len=100, table=TokenTable(1000, holes=frozenset({7})))


def check(request: dict[str, Any] | None = None, limits: Limits = LIMITS, **parts: Any) -> Submit:
    return check_request(
        {"token_ids": [1, 2, 3], **(request or {}), **parts}, 7, limits, random.Random(0)
    )


def with_defaults(**defaults: Any) -> Limits:
    return Limits(100, LIMITS.table, GenerationDefaults(**defaults))


def sampling(**options: Any) -> Submit:
    return check(sampling_options=options)


def stop(**conditions: Any) -> Submit:
    return check(stop_conditions=conditions)


def test_the_smallest_request_gets_the_documented_defaults() -> None:
    submit = check()
    assert submit.request_id == 7
    assert array("i", submit.token_ids).tolist() == [1, 2, 3]
    assert submit.max_tokens == 97  # what the context leaves room for
    assert submit.min_tokens == 0
    assert submit.sampling.temperature == 1.0
    assert submit.sampling.top_p == 1.0
    assert submit.sampling.top_k == 0
    assert submit.sampling.logprobs == -1


def test_none_means_unset_everywhere() -> None:
    nothing = dict.fromkeys(
        ("n", "best_of", "temperature", "top_p", "top_k", "min_p", "seed", "guided_decoding")
    )
    submit = check(sampling_options=nothing, stop_conditions=None, output_options=None)
    assert submit.sampling.temperature == 1.0


def test_a_packed_prompt_is_the_same_as_a_list() -> None:
    packed = array("i", [5, 6, 999]).tobytes()
    assert check(token_ids=packed).token_ids == check(token_ids=[5, 6, 999]).token_ids


def test_a_prompt_that_just_fits_may_generate_one_token() -> None:
    assert check(token_ids=[1] * 99).max_tokens == 1


def test_max_tokens_beyond_the_context_ends_at_the_context() -> None:
    assert stop(max_tokens=5000).max_tokens == 97


def test_a_tiny_temperature_is_greedy() -> None:
    assert sampling(temperature=1e-6).sampling.temperature == 0.0


@pytest.mark.parametrize("off", [None, 0, -1, 1000, 10**9])
def test_top_k_off_is_one_value(off: int | None) -> None:
    assert sampling(top_k=off).sampling.top_k == 0


def test_a_seed_is_kept_and_a_negative_one_wraps() -> None:
    assert sampling(seed=42).sampling.seed == 42
    assert sampling(seed=-1).sampling.seed == 2**64 - 1


def test_requests_without_a_seed_draw_different_ones() -> None:
    seeds = random.Random(0)
    drawn = {check_request({"token_ids": [1]}, 1, LIMITS, seeds).sampling.seed for _ in range(10)}
    assert len(drawn) == 10


def test_eos_comes_from_the_model_and_from_hidden_stops() -> None:
    submit = check(
        eos_token_ids=[2], stop_conditions={"stop_token_ids_hidden": [3], "stop_token_ids": [4]}
    )
    assert submit.eos_token_ids == [2, 3]
    assert submit.stop_token_ids == [4]


def test_salt_and_priority_come_from_the_router() -> None:
    submit = check(routing={"cache_salt": "tenant", "priority": 3})
    assert (submit.cache_salt, submit.priority) == ("tenant", 3)


def test_logit_bias_is_honoured_if_it_ever_arrives() -> None:
    assert sampling(logit_bias={"5": -100, 6: 2.5}).logit_bias == {5: -100.0, 6: 2.5}


def test_logit_bias_arrives_in_a_header() -> None:
    header = {"logit-bias": '{"5": -100, "6": 2.5}'}
    submit = check_request({"token_ids": [1]}, 7, LIMITS, random.Random(0), header)
    assert submit.logit_bias == {5: -100.0, 6: 2.5}


@pytest.mark.parametrize("text", ["", "5", "[5]", '{"x": 1}', '{"5": 1e400}', '{"5": -101}'])
def test_a_bad_header_is_refused_like_the_field(text: str) -> None:
    with pytest.raises(InvalidArgument, match="logit_bias"):
        check_request({"token_ids": [1]}, 7, LIMITS, random.Random(0), {"logit-bias": text})


def test_a_stop_token_that_cannot_be_sampled_is_no_stop() -> None:
    submit = check(
        eos_token_ids=[2, 1000, 163_840], stop_conditions={"stop_token_ids": [7, 4, 999, 5000]}
    )
    assert submit.eos_token_ids == [2]
    assert submit.stop_token_ids == [4, 999]


def test_min_tokens_needs_a_token_that_does_not_stop() -> None:
    small = Limits(max_model_len=100, table=TokenTable(4))
    request = {"token_ids": [1], "eos_token_ids": [0]}
    stops = {"min_tokens": 1, "stop_token_ids": [1, 2, 3]}
    with pytest.raises(InvalidArgument, match=r"min_tokens forbids 4 stop tokens.*only 4"):
        check(request, small, stop_conditions=stops)
    assert check(request, small, stop_conditions=stops | {"ignore_eos": True}).min_tokens == 1
    assert check(request, small, stop_conditions=stops | {"min_tokens": 0}).stop_token_ids


def test_a_field_that_is_unset_has_the_models_default() -> None:
    limits = with_defaults(sampling={"temperature": 0.6, "top_k": 5, "top_p": 0.9})
    silent = check(limits=limits, sampling_options={"temperature": None, "top_k": None}).sampling
    assert (silent.temperature, silent.top_k, silent.top_p) == (0.6, 5, 0.9)


def test_what_the_user_gives_wins_over_the_models_default() -> None:
    limits = with_defaults(sampling={"temperature": 0.6, "top_k": 5, "top_p": 0.9})
    given = {"temperature": 0, "top_k": -1, "top_p": 1.0}
    spoken = check(limits=limits, sampling_options=given).sampling
    assert (spoken.temperature, spoken.top_k, spoken.top_p) == (0, 0, 1.0)


def test_the_servers_limit_of_tokens_holds_for_every_answer() -> None:
    limits = with_defaults(max_tokens=10)
    assert check(limits=limits).max_tokens == 10
    assert check(limits=limits, stop_conditions={"max_tokens": 50}).max_tokens == 10
    assert check(limits=limits, stop_conditions={"max_tokens": 5}).max_tokens == 5
    both = check(limits=limits, stop_conditions={"max_tokens": 50, "min_tokens": 20})
    assert (both.max_tokens, both.min_tokens) == (10, 10)


def test_the_models_own_eos_tokens_end_an_answer_too() -> None:
    limits = with_defaults(eos_token_ids=(3, 5000))
    assert check(limits=limits, eos_token_ids=[2]).eos_token_ids == [2, 3]


def test_what_the_frontend_does_anyway_may_be_asked_for() -> None:
    assert check(extra_args={"sampling_options": {"detokenize": True}}).request_id == 7


def test_stop_strings_are_the_frontends_business() -> None:
    assert stop(stop=["END"]).stop_token_ids == []


def test_an_empty_constraint_is_none() -> None:
    assert sampling(guided_decoding={"json": None}).request_id == 7


BAD: list[tuple[dict[str, Any], str]] = [
    ({"token_ids": []}, "the prompt is empty"),
    ({"token_ids": None}, "the prompt is empty"),
    ({"token_ids": [1] * 100}, "100 tokens.*at most 100.*--max-model-len"),
    ({"token_ids": [1, 1000]}, "token id 1000 is outside the vocabulary"),
    ({"token_ids": [-1]}, "token id -1 is outside the vocabulary"),
    ({"token_ids": [2**40]}, "32-bit integers"),
    ({"token_ids": [1.5]}, "32-bit integers"),
    ({"token_ids": ["a"]}, "32-bit integers"),
    ({"token_ids": b"\x00\x01\x02"}, "32-bit integers"),
    ({"stop_conditions": {"max_tokens": 0}}, "max_tokens is 0"),
    ({"stop_conditions": {"max_tokens": -5}}, "max_tokens is -5"),
    ({"stop_conditions": {"max_tokens": 2, "min_tokens": 3}}, "min_tokens is 3"),
    ({"stop_conditions": {"min_tokens": -1}}, "min_tokens is -1"),
    ({"stop_conditions": {"max_thinking_tokens": 5}}, "max_thinking_tokens"),
    ({"stop_conditions": {"stop_token_ids": ["x"]}}, "stop_token_ids holds 'x'"),
    ({"stop_conditions": {"surprise": 1}}, "stop_conditions.surprise is not known"),
    ({"sampling_options": {"temperature": -0.1}}, "temperature is -0.1"),
    ({"sampling_options": {"temperature": math.nan}}, "temperature is nan"),
    ({"sampling_options": {"temperature": math.inf}}, "temperature is inf"),
    ({"sampling_options": {"temperature": "hot"}}, "temperature is 'hot'"),
    ({"sampling_options": {"top_p": 2}}, "top_p is 2"),
    ({"sampling_options": {"top_p": 0}}, "top_p is 0"),
    ({"sampling_options": {"min_p": 1.5}}, "min_p is 1.5"),
    ({"sampling_options": {"top_k": -2}}, "top_k is -2"),
    ({"sampling_options": {"top_k": 1.5}}, "top_k is 1.5"),
    ({"sampling_options": {"presence_penalty": 2.5}}, "presence_penalty is 2.5"),
    ({"sampling_options": {"frequency_penalty": -3}}, "frequency_penalty is -3"),
    ({"sampling_options": {"repetition_penalty": 0}}, "repetition_penalty is 0"),
    ({"sampling_options": {"n": 2}}, "n is 2.*one choice"),
    ({"sampling_options": {"n": 0}}, "n is 0"),
    ({"sampling_options": {"best_of": 3}}, "best_of is 3"),
    ({"sampling_options": {"use_beam_search": True}}, "use_beam_search"),
    ({"sampling_options": {"length_penalty": 2.0}}, "length_penalty"),
    ({"sampling_options": {"guided_decoding": {"regex": "a+"}}}, "guided decoding .regex."),
    ({"sampling_options": {"mirostat": 2}}, "sampling_options.mirostat is not known"),
    ({"sampling_options": {"logit_bias": {"x": 1}}}, "logit_bias names 'x'"),
    ({"sampling_options": {"logit_bias": {"1000": 1}}}, "token id 1000"),
    ({"sampling_options": {"logit_bias": {"1": 101}}}, "between -100 and 100"),
    ({"output_options": {"logprobs": 1000}}, "top_logprobs is 1000.*at most 20"),
    ({"output_options": {"prompt_logprobs": 1}}, "prompt_logprobs"),
    (
        {"sampling_options": {"logit_bias": dict.fromkeys(range(MAX_LOGIT_BIAS + 1), 1)}},
        f"{MAX_LOGIT_BIAS + 1} entries.*at most {MAX_LOGIT_BIAS}",
    ),
    (
        {"stop_conditions": {"stop_token_ids": list(range(MAX_STOP_TOKEN_IDS + 1))}},
        f"stop_token_ids holds {MAX_STOP_TOKEN_IDS + 1} token ids.*{MAX_STOP_TOKEN_IDS}",
    ),
    (
        {"eos_token_ids": list(range(MAX_STOP_TOKEN_IDS + 1))},
        f"eos_token_ids holds {MAX_STOP_TOKEN_IDS + 1} token ids",
    ),
    ({"routing": {"priority": 2**70}}, f"priority is {2**70}"),
    ({"routing": {"priority": -(2**63)}}, f"priority is -{2**63}"),
    ({"routing": {"priority": "high"}}, "priority is 'high'"),
    ({"sampling_options": {"temperature": 10**400}}, "temperature is 1000.*finite"),
    ({"extra_args": {"sampling_options": {"allowed_token_ids": [5]}}}, "allowed_token_ids is not"),
    ({"extra_args": {"sampling_options": {"detokenize": False}}}, "detokenize is not"),
    ({"extra_args": {"nvext": {"metadata_upload": {"url": "x"}}}}, "metadata_upload is not"),
    ({"extra_args": {"nvext": {"extra_fields": ["routed_experts"]}}}, "routed_experts is not"),
    ({"mm_processor_kwargs": {"a": 1}}, "mm_processor_kwargs.*text only"),
    ({"media_io_kwargs": {"a": {}}}, "media_io_kwargs.*text only"),
    ({"multi_modal_data": {"image_url": [{"Url": "x"}]}}, "text only"),
    ({"routing": {"lora_name": "adapter"}}, "LoRA adapter 'adapter'"),
    ({"prefill_result": {}}, "prefill_result"),
]


@pytest.mark.parametrize(("parts", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_a_bad_value_is_refused_with_one_sentence(parts: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence) as refusal:
        check(parts)
    assert "\n" not in str(refusal.value)
