# SPDX-License-Identifier: MIT
"""What the frontend cannot use is refused at the door, in one sentence with the way out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from model_directories import REFUSED, SERVED, Case

from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint
from dynamo_tokenspeed.worker.args import parse_args
from dynamo_tokenspeed.worker.errors import UsageError
from dynamo_tokenspeed.worker.model_directory import resolve_model
from dynamo_tokenspeed.worker.worker_args import WorkerArgs


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("DYN_", "TS_")):
            monkeypatch.delenv(name)


async def resolved(model: Path, *flags: str) -> WorkerArgs:
    return await resolve_model(parse_args(["--model", str(model), *flags]))


@pytest.mark.parametrize("case", REFUSED, ids=[case.name for case in REFUSED])
async def test_what_the_frontend_cannot_use_is_refused(case: Case, tmp_path: Path) -> None:
    model = case.write(tmp_path / "model")

    with pytest.raises(UsageError) as refusal:
        await resolved(model, *case.flags)

    assert case.refusal in str(refusal.value)
    assert str(model) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("case", SERVED, ids=[case.name for case in SERVED])
async def test_what_it_can_use_passes(case: Case, tmp_path: Path) -> None:
    args = await resolved(case.write(tmp_path / "model"), *case.flags)

    assert args.table.size == 4096


async def test_a_worker_of_no_endpoint_needs_no_chat_template(tmp_path: Path) -> None:
    [no_template] = [case for case in REFUSED if case.name == "no template"]

    await resolved(no_template.write(tmp_path / "model"), "--endpoint-types", "none")


@pytest.mark.parametrize("arch", ["deepseek_v3", "kimi_k25", "null"])
async def test_a_checkpoint_of_our_own_making_passes(arch: str, tmp_path: Path) -> None:
    args = await resolved(write_random_checkpoint(tmp_path / arch, arch=arch, vocab_size=300))

    assert 256 < args.table.size <= 300
