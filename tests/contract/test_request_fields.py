# SPDX-License-Identifier: MIT
"""What becomes of every field of a request: docs/worker.md's table at the real frontend.

A Dynamo release that begins or ceases to pass a field on fails here.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from dynamo_environments import OLDEST, ROOT, DynamoEnvironment

from dynamo_tokenspeed.launch.deployment import Deployment

PATHS = ("chat/completions", "completions")
BASE: dict[str, Any] = {"model": "stand-in", "max_tokens": 8, "seed": 1}
WHAT: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "completions": {"prompt": [5] * 12},  # as many tokens as the chat's
}
# Past the tokens that end an answer, among special ones.
MANNERS = {"vocab_size": 4096, "offset": 4086 - 12}
# Templates with variables are what the fields for them are for.
TEMPLATE_VARIABLES = "{{ style }}{{ reasoning_effort }}{{ thinking }}{{ enable_thinking }}"
_OUTCOME = re.compile(r"(served|frontend|refused|dropped)(?: \(1\.4: (\w+)\))?")


@dataclass(frozen=True)
class Row:
    field: str  # as it stands in the request
    path: str
    outcome: str
    outcome_oldest: str

    def __str__(self) -> str:
        return f"{self.path}: {self.field}"

    @property
    def body(self) -> dict[str, Any]:
        own = json.loads(f"{{{self.field}}}") if self.field.startswith('"') else {}
        return BASE | WHAT[self.path] | own

    @property
    def headers(self) -> dict[str, str]:
        if self.field.startswith('"'):
            return {}
        name, _, value = self.field.partition(": ")
        return {name: value}


def documented() -> Iterator[Row]:
    text = (ROOT / "docs/worker.md").read_text()
    table = text.partition("| in the request | chat | completions | what happens |")[2]
    for line in table.partition("\n\n")[0].splitlines()[2:]:
        fields, *outcomes, _ = (cell.strip() for cell in line[1:-1].split("|"))
        for path, cell in zip(PATHS, outcomes, strict=True):
            outcome = _OUTCOME.fullmatch(cell)
            assert outcome is not None, f"{cell!r} in {line!r}"
            for field in re.findall(r"`([^`]+)`", fields):
                yield Row(field, path, outcome[1], outcome[2] or outcome[1])


ROWS = list(documented())


@dataclass
class Answered:
    status: int
    text: str
    submit: str  # what reached the engine; "" if nothing did

    @property
    def sampling(self) -> str:
        """All that reached the engine but the prompt."""
        return re.sub(r"token_ids=b(['\"]).*?\1,", "", self.submit, count=1)

    @property
    def visible(self) -> str:
        """What the client sees, without what differs from answer to answer."""
        return re.sub(r'"(id|created)":\s*[^,]+,', "", self.text)


class Client:
    """Sends requests to a deployment whose engine writes down what it gets."""

    def __init__(self, deployment: Deployment, log: Path) -> None:
        self._url = deployment.url
        self._log = log

    async def send(
        self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> Answered:
        seen = self._submits()
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
            session.post(f"{self._url}/v1/{path}", json=body, headers=headers) as response,
        ):
            text = await response.text()
        new = self._submits()[len(seen) :]
        assert len(new) <= 1, new
        return Answered(response.status, text, new[0] if new else "")

    def _submits(self) -> list[str]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [re.sub(r"request_id=\d+", "", line) for line in lines if line.startswith("Submit")]


def outcome(plain: Answered, answered: Answered) -> str:
    if answered.status >= 400:
        return "refused"
    if answered.sampling != plain.sampling:
        return "served"
    if answered.submit != plain.submit or answered.visible != plain.visible:
        return "frontend"
    return "dropped"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine") / "messages"


@pytest.fixture(scope="module")
def client(start: Any, log: Path) -> Iterator[Client]:
    log.unlink(missing_ok=True)
    template = log.with_name("template.jinja")
    template.write_text(
        (ROOT / "recipes/tiny-kimi/chat_template.jinja").read_text() + TEMPLATE_VARIABLES
    )
    flags = ("--generation-config", "vllm", "--custom-jinja-template", str(template))
    with start(MANNERS | {"log": str(log)}, *flags) as deployment:
        yield Client(deployment, log)
        deployment.check()


@pytest.mark.parametrize("row", ROWS, ids=map(str, ROWS))
async def test_a_field_does_what_the_docs_say(
    client: Client, dynamo: DynamoEnvironment, row: Row
) -> None:
    plain = await client.send(row.path, BASE | WHAT[row.path])

    answered = await client.send(row.path, row.body, row.headers)

    oldest = dynamo.version == OLDEST
    assert outcome(plain, answered) == (row.outcome_oldest if oldest else row.outcome), answered
    if answered.status >= 400 and not oldest:  # 1.4.2 makes a 500 of many a refusal
        assert answered.status in (400, 501)
        assert len(json.loads(answered.text)["message"].split()) > 1


def test_the_table_names_every_field_of_openais_requests() -> None:
    resources = openai.resources
    fields = {
        "chat/completions": inspect.signature(resources.chat.Completions.create).parameters,
        "completions": inspect.signature(resources.Completions.create).parameters,
    }
    ours = {"self", "model", "messages", "prompt"} | {
        "extra_headers", "extra_query", "extra_body", "timeout",
    }  # fmt: skip
    for path, names in fields.items():
        tabled = {
            name for row in ROWS if row.path == path for name in re.findall(r'"(\w+)":', row.field)
        }
        assert set(names) - ours - tabled == set(), path


async def test_the_docs_name_every_extension_of_dynamos(client: Client) -> None:
    answered = await client.send("completions", BASE | WHAT["completions"] | {"nvext": {"x": 1}})

    known = re.findall(r"`(\w+)`", answered.text.partition("expected one of")[2])
    assert len(known) > 5
    text = (ROOT / "docs/worker.md").read_text()
    assert [name for name in known if name not in text] == []
