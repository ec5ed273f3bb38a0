# SPDX-License-Identifier: MIT
"""The table of our flags is their only source: each one in it does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dynamo_tokenspeed.protocol import EngineConfig
from dynamo_tokenspeed.worker.args import build_parser, parse_args
from dynamo_tokenspeed.worker.errors import UsageError
from dynamo_tokenspeed.worker.flag import Flag
from dynamo_tokenspeed.worker.flag_types import (
    boolean,
    natural_int,
    positive_int,
    seconds,
    size,
    text,
    tokens_per_second,
    whole_int,
)
from dynamo_tokenspeed.worker.flags import FLAGS
from dynamo_tokenspeed.worker.worker_args import WorkerArgs

ROOT = Path(__file__).resolve().parents[2]
SETTING = [flag for flag in FLAGS if flag.sets is not None]
SERVED = [flag for flag in FLAGS if flag.served is not None]

# A value that is nobody's default, by type or by name.
OF_TYPE = {
    **dict.fromkeys((natural_int, positive_int, seconds, tokens_per_second, whole_int), "77"),
    size: "77MiB",
    text: "other",
}
OF_NAME = {
    "--dtype": "float32",
    "--kv-events-config": '{"topic": "other"}',
    "--log-level": "debug",
    "--max-num-batched-tokens": "7777",
    "--override-generation-config": '{"temperature": 0.5}',
    "--served-model-name": "other",
}
# What the worker tells its engine without a flag.
NO_FLAG = {
    *("device", "dp_rank", "inbox", "outbox", "heartbeat_fd", "kv_events_endpoint"),
    *("kv_events_topic", "model", "num_token_ids", "unknown_token_ids"),
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("DYN_", "TS_", "ETCD_", "NATS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DYN_WORKER_GRACEFUL_SHUTDOWN_TIMEOUT", "1000")


def field(flag: Flag, args: WorkerArgs) -> Any:
    """The field that the flag sets."""
    assert flag.sets is not None
    holder, name = flag.sets
    return getattr(args if holder is WorkerArgs else args.engine, name)


def parse(*argv: str) -> WorkerArgs:
    return parse_args(["--model", "m", *argv])


def sample(flag: Flag) -> str:
    if flag.parse is boolean:
        return "true" if flag.default_text.startswith("off") or not default(flag) else "false"
    return OF_NAME.get(flag.name) or OF_TYPE[flag.parse]


def default(flag: Flag) -> Any:
    return field(flag, parse())


def argv(flag: Flag, name: str) -> list[str]:
    if flag.parse is not boolean:
        return [name, sample(flag)]
    return [name if sample(flag) == "true" else name.replace("--", "--no-", 1)]


def id_of(flag: Flag) -> str:
    return flag.name


@pytest.mark.parametrize("flag", FLAGS, ids=id_of)
def test_a_flag_sets_a_field_or_says_what_is_served(flag: Flag) -> None:
    assert (flag.sets is None) != (flag.served is None)
    refuses = flag.served is not None and not (flag.parse is boolean and len(flag.served) == 2)
    assert bool(flag.why) == refuses


@pytest.mark.parametrize("flag", SETTING, ids=id_of)
def test_a_flag_reaches_its_field_by_every_name(flag: Flag) -> None:
    unset = default(flag)
    for name in (flag.name, *flag.aliases):
        reached = field(flag, parse(*argv(flag, name)))

        assert reached != unset
        if not flag.computed:
            assert reached == flag.parse(sample(flag))


@pytest.mark.parametrize("flag", SETTING, ids=id_of)
def test_its_variable_is_worth_the_flag(flag: Flag, monkeypatch: pytest.MonkeyPatch) -> None:
    by_flag = field(flag, parse(*argv(flag, flag.name)))
    monkeypatch.setenv(flag.env, sample(flag))
    by_variable = parse_args([]) if flag.name == "--model" else parse()
    if flag.name == "--model":
        assert by_variable.model == "other"
    else:
        assert field(flag, by_variable) == by_flag


@pytest.mark.parametrize("flag", SERVED, ids=id_of)
def test_what_is_served_is_accepted_and_changes_nothing(flag: Flag) -> None:
    assert flag.served is not None
    for value in flag.served:
        form = flag.name if value is not False else flag.name.replace("--", "--no-", 1)
        given = [form] if flag.parse is boolean else [form, str(value)]

        assert parse(*given).engine == parse().engine


@pytest.mark.parametrize("flag", [flag for flag in SERVED if flag.why], ids=id_of)
def test_what_is_not_served_is_refused_with_its_reason(flag: Flag) -> None:
    given = [] if flag.parse is boolean else [OF_TYPE[flag.parse]]

    with pytest.raises(UsageError) as refused:
        parse(flag.name, *given)

    assert str(refused.value) == f"{' '.join([flag.name, *given])}: {flag.why}"


def test_a_flag_that_is_not_given_leaves_the_fields_default() -> None:
    engine = parse("--no-enable-prefix-caching").engine

    assert engine == EngineConfig(model="m", enable_prefix_caching=False)


def test_every_field_of_the_engine_has_a_flag_or_is_the_workers_own() -> None:
    by_flag = {flag.sets[1] for flag in SETTING if flag.sets and flag.sets[0] is EngineConfig}
    fields = {field.name for field in msgspec.structs.fields(EngineConfig)}

    assert fields - by_flag == NO_FLAG


def test_no_name_and_no_variable_is_anothers() -> None:
    names = [name for flag in FLAGS for name in (flag.name, *flag.aliases)]
    assert len(set(names)) == len(names)
    assert len({flag.env for flag in FLAGS}) == len(FLAGS)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.parse is text], ids=id_of)
def test_an_empty_word_is_no_value(flag: Flag, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=f"{flag.name}.*is empty"):
        parse(flag.name, "")
    monkeypatch.setenv(flag.env, "")
    with pytest.raises(UsageError, match=f"{flag.env}.*is empty"):
        parse()


def test_the_pages_tables_are_the_flags() -> None:
    script = ROOT / "scripts" / "flag_table.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pages_name_no_flag_that_there_is_not() -> None:
    page = (ROOT / "docs/worker.md").read_text()
    known = {*build_parser()._option_string_actions, "--migration-limit"}  # the frontend's

    assert set(re.findall(r"`(--[a-z][a-z-]*[a-z])(?!-)", page)) - known == set()
