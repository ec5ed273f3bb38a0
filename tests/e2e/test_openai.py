# SPDX-License-Identifier: MIT
"""The OpenAI API through Dynamo's real frontend, as its own client sees it."""

from __future__ import annotations

import asyncio

import openai
import pytest
from openai_client import NO_END, connect, connect_async, user
from router_index import events_applied
from tiny_kimi import MAX_MODEL_LEN
from worker_metrics import eventually, metric, total

from dynamo_tokenspeed.launch.deployment import Deployment

QUESTION = user("def fibonacci(n):")
CODE = "import os\nimport sys\n\n\ndef main():\n"


def test_the_served_model_is_listed(client: openai.OpenAI, model: str) -> None:
    assert [listed.id for listed in client.models.list()] == [model] == ["tiny-kimi"]


def test_chat(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=12, temperature=0, extra_body=NO_END
    )

    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_chat_streamed_says_the_same(any_dynamo: Deployment) -> None:
    client, model = connect(any_dynamo), any_dynamo.model
    request = {"model": model, "messages": QUESTION, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**request)

    chunks = list(
        client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        )
    )

    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    assert text == whole.choices[0].message.content
    assert choices[-1].finish_reason == whole.choices[0].finish_reason
    assert sum(choice.finish_reason is not None for choice in choices) == 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_completion(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(
        model=model, prompt=CODE, max_tokens=12, temperature=0, extra_body=NO_END
    )

    assert answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


def test_a_completion_streamed_says_the_same(client: openai.OpenAI, model: str) -> None:
    request = {"model": model, "prompt": CODE, "max_tokens": 24, "temperature": 0}
    whole = client.completions.create(**request)

    chunks = list(client.completions.create(**request, stream=True))

    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.text for choice in choices) == whole.choices[0].text
    assert choices[-1].finish_reason == whole.choices[0].finish_reason


def test_a_prompt_of_token_ids(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(
        model=model, prompt=[10, 20, 30, 40, 50], max_tokens=3, extra_body=NO_END
    )

    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 5
    assert answer.usage.completion_tokens == 3


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_stop_string_ends_the_text_before_it(
    client: openai.OpenAI, model: str, stream: bool
) -> None:
    request = {"model": model, "prompt": CODE, "temperature": 0, "max_tokens": 48}
    text = client.completions.create(**request).choices[0].text
    stop = text[len(text) // 2 : len(text) // 2 + 4]

    # Dynamo's `ignore_eos` would switch stop strings off as well.
    answer = client.completions.create(**request, stop=[stop], stream=stream)

    choices = [c.choices[0] for c in answer if c.choices] if stream else answer.choices
    assert "".join(choice.text for choice in choices) == text[: text.index(stop)]
    assert choices[-1].finish_reason == "stop"


def test_a_stop_string_frees_the_pages(
    deployment: Deployment, client: openai.OpenAI, model: str
) -> None:
    generated = total(deployment.workers, "generated_tokens")

    client.completions.create(model=model, prompt=CODE, stop=["e"], max_tokens=1500)

    assert eventually(lambda: total(deployment.workers, "kv_pages_used") == 0, 2.0)
    assert total(deployment.workers, "generated_tokens") < generated + 1000


def test_a_stop_token_ends_the_answer(client: openai.OpenAI, model: str) -> None:
    request = {"model": model, "prompt": CODE, "temperature": 0, "max_tokens": 24}
    fields = {"nvext": {"extra_fields": ["completion_token_ids"]}}
    free = client.completions.create(**request, extra_body=fields)
    token_ids = free.nvext["completion_token_ids"]
    stop = token_ids[10]

    answer = client.completions.create(**request, extra_body={"stop_token_ids": [stop]})

    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == token_ids.index(stop) + 1


def test_logit_bias_arrives_in_a_header(any_dynamo: Deployment) -> None:
    client, model = connect(any_dynamo), any_dynamo.model
    request = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 1}
    fields = {"nvext": {"extra_fields": ["completion_token_ids"]}}

    def first_token(**headers: str) -> int:
        answer = client.chat.completions.create(**request, extra_body=fields, extra_headers=headers)
        return int(answer.nvext["completion_token_ids"][0])

    likeliest = first_token()

    banned = first_token(**{"x-dynamo-meta-logit-bias": f'{{"{likeliest}": -100}}'})

    assert banned != likeliest
    assert first_token(**{"x-dynamo-meta-logit-bias": f'{{"{likeliest}": 100}}'}) == likeliest
    with pytest.raises(openai.BadRequestError, match="99999999"):
        first_token(**{"x-dynamo-meta-logit-bias": '{"99999999": 1}'})


def test_a_request_that_is_silent_samples_as_the_model_says(
    client: openai.OpenAI, model: str
) -> None:
    def answer(**fields: float) -> str:
        request = {"model": model, "prompt": CODE, "max_tokens": 24, "seed": 3}
        return client.completions.create(**request, **fields).choices[0].text

    silent = answer()

    assert silent == answer(temperature=0.6, top_p=0.95)  # its generation_config.json
    assert silent != answer(temperature=1.0, top_p=1.0)


def test_chat_logprobs_with_alternatives(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model,
        messages=QUESTION,
        max_tokens=6,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
        extra_body=NO_END,
    )

    assert answer.choices[0].logprobs is not None
    records = answer.choices[0].logprobs.content
    assert records is not None
    assert len(records) == 6
    for record in records:
        values = [alternative.logprob for alternative in record.top_logprobs]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert record.logprob == values[0] <= 0  # greedy: the most likely one


def test_completion_logprobs(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(
        model=model, prompt=CODE, max_tokens=5, temperature=1, logprobs=2, extra_body=NO_END
    )

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert len(logprobs.token_logprobs) == 5
    assert all(value is not None and value <= 0 for value in logprobs.token_logprobs)


def test_a_seed_makes_an_answer_reproducible(client: openai.OpenAI, model: str) -> None:
    def answer(seed: int) -> str:
        request = {"model": model, "prompt": CODE, "max_tokens": 24, "temperature": 1.0}
        return client.completions.create(**request, seed=seed).choices[0].text

    first = answer(1)

    assert answer(1) == first
    assert answer(2) != first


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_usage_counts_cached_tokens(
    deployment: Deployment, client: openai.OpenAI, model: str, stream: bool
) -> None:
    prompt = [(7 * i + stream) % 4000 for i in range(100)]
    request = {"model": model, "prompt": prompt, "max_tokens": 2, "stream": stream}
    if stream:
        request["stream_options"] = {"include_usage": True}

    def cached_tokens() -> int:
        answer = client.completions.create(**request)
        usage = list(answer)[-1].usage if stream else answer.usage
        assert usage.prompt_tokens == 100
        details = usage.prompt_tokens_details
        return details.cached_tokens if details else 0

    known = events_applied(deployment)
    assert cached_tokens() == 0
    assert eventually(lambda: events_applied(deployment) > known)  # the router hears of the pages
    assert cached_tokens() == 96  # six pages of 16


@pytest.mark.parametrize("end", ["length", "stop string", "stop token"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", ["chat", "completion"])
def test_cached_tokens_are_reported_however_the_answer_ends(
    any_dynamo: Deployment, api: str, stream: bool, end: str
) -> None:
    client, model = connect(any_dynamo), any_dynamo.model
    request = {"model": model, "max_tokens": 24, "temperature": 0}
    if api == "chat":
        create, request["messages"] = client.chat.completions.create, user(CODE * 4)
    else:
        create, request["prompt"] = client.completions.create, CODE * 4  # type: ignore[assignment]
    free = create(**request, extra_body={"nvext": {"extra_fields": ["completion_token_ids"]}})
    text = free.choices[0].message.content if api == "chat" else free.choices[0].text
    if end == "stop string":
        request["stop"] = [text[len(text) // 2 : len(text) // 2 + 4]]
    elif end == "stop token":
        request["extra_body"] = {"stop_token_ids": [free.nvext["completion_token_ids"][8]]}
    if stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}

    def cached_tokens() -> int:
        answer = create(**request)
        usage = list(answer)[-1].usage if stream else answer.usage
        assert usage.prompt_tokens == free.usage.prompt_tokens
        assert (usage.completion_tokens < 24) == (end != "length")
        details = usage.prompt_tokens_details
        return details.cached_tokens if details else 0

    pages = (free.usage.prompt_tokens - 1) // 16
    assert eventually(lambda: cached_tokens() == 16 * pages)  # once the router sends it there


async def test_64_concurrent_streams_say_what_each_says_alone(
    deployment: Deployment, client: openai.OpenAI, model: str
) -> None:
    prompts = [f"# module {number}\nimport {name}\n" for number, name in enumerate("abcdefgh")]
    request = {"model": model, "max_tokens": 24, "temperature": 0, "extra_body": NO_END}
    alone = [client.completions.create(prompt=p, **request).choices[0].text for p in prompts]

    async def stream(prompt: str) -> str:
        chunks = await many.completions.create(prompt=prompt, stream=True, **request)
        return "".join([c.choices[0].text async for c in chunks if c.choices])

    async with connect_async(deployment) as many:
        together = await asyncio.gather(*(stream(prompts[i % 8]) for i in range(64)))

    assert together == alone * 8


def test_a_client_that_leaves_frees_its_pages(
    deployment: Deployment, client: openai.OpenAI, model: str
) -> None:
    stream = client.completions.create(
        model=model, prompt=CODE, max_tokens=1900, stream=True, extra_body=NO_END
    )
    next(iter(stream))
    [worker] = [w for w in deployment.workers if metric(w, "kv_pages_used") > 0]

    stream.close()

    assert eventually(lambda: metric(worker, "kv_pages_used") == 0, 2.0)
    assert metric(worker, "requests_running") == 0


def test_a_prompt_that_just_fits(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(
        model=model, prompt=[5] * (MAX_MODEL_LEN - 1), max_tokens=10, extra_body=NO_END
    )

    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1
    assert answer.choices[0].finish_reason == "length"


def test_a_prompt_that_does_not_fit(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match=str(MAX_MODEL_LEN)):
        client.completions.create(model=model, prompt=[5] * MAX_MODEL_LEN, max_tokens=1)


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="no-such-model", prompt="x", max_tokens=1)
