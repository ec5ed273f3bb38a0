# SPDX-License-Identifier: MIT
"""A vocabulary that is larger than the tokenizer's table: the frontend never meets the rest."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from dynamo_environments import NEWEST, OLDEST, dynamo_environment
from openai_client import connect
from tiny_kimi import CHECKPOINT, RECIPE, WORKER_FLAGS

from dynamo_tokenspeed.launch.deployment import Deployment

BYTES = 256


def write_tiktoken_model(folder: Path) -> int:
    """The shipped model with a table of single bytes and its special tokens: of 4,096 ids some 270.

    Kimi's checkpoints have a table of this kind, and Dynamo's decoder ends at an id that is not
    in it, where it reads over one with a tokenizer.json.
    """
    folder.mkdir()
    for name in ("config.json", "generation_config.json", "chat_template.jinja"):
        shutil.copy(CHECKPOINT / name, folder)
    (folder / "model.safetensors").symlink_to(CHECKPOINT / "model.safetensors")
    ranks = (f"{base64.b64encode(bytes([i])).decode()} {i}" for i in range(BYTES))
    (folder / "tiktoken.model").write_text("\n".join(ranks))

    tokenizer = json.loads((CHECKPOINT / "tokenizer_config.json").read_text())
    special = list(tokenizer["added_tokens_decoder"].values())
    tokenizer["added_tokens_decoder"] = {str(BYTES + i): token for i, token in enumerate(special)}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / name).read_text())
        ids = {"bos_token_id": BYTES, "eos_token_id": BYTES + 1, "pad_token_id": BYTES + 2}
        (folder / name).write_text(json.dumps(config | ids))
    return BYTES + len(special)


@pytest.fixture(scope="module", params=[NEWEST, OLDEST])
def padded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[openai.OpenAI, str, int]]:
    folder = tmp_path_factory.mktemp("padded") / "model"
    known = write_tiktoken_model(folder)
    python = dynamo_environment(request.param).python
    with Deployment.from_recipe(
        RECIPE, model=folder, workers=1, worker_flags=WORKER_FLAGS, python=python
    ) as running:
        yield connect(running), running.model, known
        running.check()


@pytest.mark.parametrize("temperature", [0, 1, 2])
def test_an_answer_holds_only_tokens_with_a_text(
    padded: tuple[openai.OpenAI, str, int], temperature: float
) -> None:
    client, model, known = padded

    for seed in range(4):
        answer = client.completions.create(
            model=model,
            prompt="def main():\n",
            max_tokens=32,
            temperature=temperature,
            top_p=1,
            seed=seed,
            logprobs=5,
            extra_body={"nvext": {"extra_fields": ["completion_token_ids"]}},
        )

        assert max(answer.nvext["completion_token_ids"]) < known


def test_a_prompt_of_other_tokens_is_refused(padded: tuple[openai.OpenAI, str, int]) -> None:
    client, model, known = padded

    with pytest.raises(openai.APIStatusError):
        client.completions.create(model=model, prompt=[5, known], max_tokens=1)
