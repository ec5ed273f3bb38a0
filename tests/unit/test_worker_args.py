# SPDX-License-Identifier: MIT
"""The command line: every flag does something or is refused with a sentence that names it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dynamo_tokenspeed.worker.args import build_parser, parse_args
from dynamo_tokenspeed.worker.errors import UsageError
from dynamo_tokenspeed.worker.kv_events import subscriber_endpoint
from dynamo_tokenspeed.worker.model_directory import check_model_directory, refuse_missing
from dynamo_tokenspeed.worker.worker_args import WorkerArgs

TINY = Path(__file__).resolve().parents[2] / "recipes/tiny-kimi"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("DYN_", "TS_", "ETCD_", "NATS_")):
            monkeypatch.delenv(name)
    # Dynamo's own validation writes these.
    for name in (
        "DYN_RESPONSE_PLANE",
        "DYN_ENGINE_REQUEST_LIMIT",
        "DYN_WORKER_GRACEFUL_SHUTDOWN_TIMEOUT",
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def parse(*flags: str) -> WorkerArgs:
    return parse_args(["--model", "m", *flags])


def test_with_nothing_set_no_server_is_needed() -> None:
    dynamo = parse().dynamo
    planes = (dynamo.discovery_backend, dynamo.request_plane, dynamo.event_plane)
    assert planes == ("file", "tcp", "zmq")


def test_a_plane_in_the_environment_wins_over_the_embedded_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DYN_DISCOVERY_BACKEND", "mem")
    monkeypatch.setenv("DYN_EVENT_PLANE", "nats")
    assert parse().dynamo.discovery_backend == "mem"
    assert parse().dynamo.event_plane == "nats"


def test_a_plane_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYN_DISCOVERY_BACKEND", "mem")
    assert parse("--discovery-backend", "etcd").dynamo.discovery_backend == "etcd"


def test_etcd_endpoints_mean_etcd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_ENDPOINTS", "http://etcd:2379")
    assert parse().dynamo.discovery_backend == "etcd"


def test_flags_have_the_names_recipes_use() -> None:
    recipe = (
        "--model-path m --served-model-name a b --context-length 512 --page-size 32 "
        "--max-num-seqs 8 --max-num-batched-tokens 256 --chunked-prefill-size 64 "
        "--kv-cache-memory 2GiB --dtype float32 --num-threads 2 --attention-backend x "
        "--moe-backend y --kv-cache-dtype auto --tensor-parallel-size 1 "
        "--trust-remote-code --drain-timeout 3 --seed 5 "
        "--dyn-tool-call-parser kimi_k2 --dyn-reasoning-parser kimi_k25"
    )
    args = parse_args(recipe.split())
    engine = args.engine
    assert args.served_model_names == ("a", "b")
    assert (engine.max_model_len, engine.page_size, engine.max_num_seqs) == (512, 32, 8)
    assert (engine.max_num_batched_tokens, engine.chunked_prefill_size) == (256, 64)
    assert (engine.kv_cache_bytes, engine.dtype, engine.num_threads) == (2 * 2**30, "float32", 2)
    assert (engine.attention_backend, engine.moe_backend) == ("x", "y")
    assert (args.drain_seconds, args.seed) == (3.0, 5)
    assert args.dynamo.dyn_tool_call_parser == "kimi_k2"


def test_every_flag_of_ours_has_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [
        action
        for group in build_parser()._action_groups[2:]
        if group.title != "Dynamo Runtime Options"
        for action in group._group_actions
    ]
    assert len(ours) > 20
    assert all("env var: TS_" in (action.help or "") for action in ours)
    monkeypatch.setenv("TS_MAX_NUM_SEQS", "3")
    monkeypatch.setenv("TS_ENABLE_PREFIX_CACHING", "false")
    args = parse()
    assert (args.engine.max_num_seqs, args.engine.enable_prefix_caching) == (3, False)
    assert parse("--max-num-seqs", "4").engine.max_num_seqs == 4


def test_there_is_no_tps_floor_unless_one_is_asked_for() -> None:
    assert parse().engine.min_tps_per_user == 0
    assert parse("--min-tps-per-user", "0").engine.min_tps_per_user == 0
    assert parse("--min-tps-per-user", "70").engine.min_tps_per_user == 70


def test_a_host_tier_has_a_size_like_the_kv_cache() -> None:
    assert parse().engine.kv_offloading_bytes == 0
    assert parse("--kv-offloading-size", "16GiB").engine.kv_offloading_bytes == 16 * 2**30


def test_overlap_is_for_the_engine_to_decide_unless_said() -> None:
    assert parse().engine.overlap_schedule is None
    assert parse("--overlap-schedule").engine.overlap_schedule is True
    assert parse("--no-overlap-schedule").engine.overlap_schedule is False


def test_kv_events_are_on_with_the_prefix_cache_and_off_without() -> None:
    assert parse().engine.kv_events_endpoint == "tcp://127.0.0.1:*"
    assert parse("--no-enable-prefix-caching").engine.kv_events_endpoint == ""


def test_kv_events_config_is_vllms() -> None:
    config = {"enable_kv_cache_events": True, "publisher": "zmq", "topic": "kv"}
    args = parse("--kv-events-config", json.dumps({**config, "endpoint": "tcp://*:*"}))
    assert (args.engine.kv_events_endpoint, args.engine.kv_events_topic) == ("tcp://*:*", "kv")
    off = parse("--kv-events-config", '{"enable_kv_cache_events": false}')
    assert off.engine.kv_events_endpoint == ""


def test_a_subscriber_cannot_connect_to_every_interface() -> None:
    assert subscriber_endpoint("tcp://0.0.0.0:5557") == "tcp://127.0.0.1:5557"
    assert subscriber_endpoint("tcp://10.0.0.1:5557") == "tcp://10.0.0.1:5557"


def test_a_larger_prefill_chunk_makes_the_step_larger() -> None:
    assert parse("--chunked-prefill-size", "8192").engine.max_num_batched_tokens == 8192


def test_a_request_limit_reaches_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    parse("--engine-request-limit", "7")
    assert os.environ["DYN_ENGINE_REQUEST_LIMIT"] == "7"


def test_a_long_drain_moves_dynamos_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "DYN_WORKER_GRACEFUL_SHUTDOWN_TIMEOUT"
    parse("--drain-timeout", "20")
    assert name not in os.environ
    parse("--drain-timeout", "60")
    assert os.environ[name] == "65"
    monkeypatch.setenv(name, "10")
    with pytest.raises(UsageError, match=f"--drain-timeout 20.*{name}=10"):
        parse("--drain-timeout", "20")


REFUSED = [
    ("--device cuda", "--device cuda"),
    ("--quantization nvfp4", "--quantization nvfp4"),
    ("--kv-cache-dtype fp8_e4m3", "--kv-cache-dtype fp8_e4m3"),
    ("--tensor-parallel-size 4", "--tensor-parallel-size 4.*one rank"),
    ("--data-parallel-size 2", "--data-parallel-size 2"),
    ("--enable-expert-parallel", "--enable-expert-parallel"),
    ("--gpu-memory-utilization 0.9", "--gpu-memory-utilization 0.9.*--kv-cache-memory"),
    ("--disaggregation-mode prefill", "--disaggregation-mode prefill"),
    ("--dtype float16", "--dtype.*float16"),
    ("--max-num-seqs 0", "--max-num-seqs.*0 is too small"),
    ("--max-model-len many", "--max-model-len.*many"),
    ("--kv-cache-memory lots", "--kv-cache-memory.*lots"),
    ("--drain-timeout -1", "--drain-timeout"),
    ("--min-tps-per-user -70", "--min-tps-per-user.*-70 is not a number of tokens/s"),
    ("--min-tps-per-user nan", "--min-tps-per-user.*nan"),
    ("--min-tps-per-user fast", "--min-tps-per-user.*fast"),
    ("--no-such-flag", "--no-such-flag"),
    ("--num-pages 10 --kv-cache-memory 1GiB", "--num-pages and --kv-cache-memory"),
    ("--kv-offloading-size lots", "--kv-offloading-size.*lots"),
    (
        "--kv-offloading-size 1GiB --no-enable-prefix-caching",
        "--kv-offloading-size.*--no-enable-prefix-caching",
    ),
    (
        "--chunked-prefill-size 512 --max-num-batched-tokens 256",
        "--chunked-prefill-size 512.*--max-num-batched-tokens 256",
    ),
    ("--max-num-seqs 64 --max-num-batched-tokens 32", "--max-num-batched-tokens 32"),
    ("--num-pages 10 --max-model-len 1000", "--num-pages 10.*--max-model-len"),
    ("--kv-events-config {", "--kv-events-config is no JSON"),
    ('--kv-events-config {"replay_endpoint":"x"}', "replay_endpoint"),
    ('--kv-events-config {"publisher":"kafka"}', "kafka"),
    ('--kv-events-config {"endpoint":"5557"}', "endpoint '5557'"),
    ('--kv-events-config {"topic":"a"} --no-enable-prefix-caching', "--no-enable-prefix-caching"),
    ("--fpm-trace", "--fpm-trace"),
    ("--connector nixl", "--connector nixl"),
    ("--output-modalities image", "--output-modalities image"),
    ("--dyn-enable-structural-tag", "--dyn-enable-structural-tag.*guided decoding"),
    ("--endpoint dyn://a.b", "--endpoint dyn://a.b"),
    ("--custom-jinja-template /none", "--custom-jinja-template /none"),
    ("--engine-request-limit 0", "--engine-request-limit"),
]


@pytest.mark.parametrize(("flags", "sentence"), REFUSED, ids=[flags for flags, _ in REFUSED])
def test_what_cannot_be_honoured_is_refused_by_name(flags: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse(*flags.split())


def test_a_bad_variable_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_MAX_NUM_SEQS", "x")
    with pytest.raises(UsageError, match="TS_MAX_NUM_SEQS"):
        parse()


def test_a_bad_variable_of_dynamos_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYN_EVENT_PLANE", "carrier-pigeon")
    with pytest.raises(UsageError, match=r"DYN_EVENT_PLANE.*carrier-pigeon"):
        parse()


def test_a_port_in_use_is_refused_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"{endpoint} cannot be bound"):
            parse("--kv-events-config", json.dumps({"endpoint": endpoint}))


def test_a_system_port_in_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        monkeypatch.setenv("DYN_SYSTEM_PORT", str(taken.getsockname()[1]))
        with pytest.raises(UsageError, match="DYN_SYSTEM_PORT"):
            parse()


def test_the_shipped_model_passes() -> None:
    refuse_missing(str(TINY))
    assert check_model_directory(str(TINY))["architectures"]


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        refuse_missing(str(tmp_path / "nothing" / "here"))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (None, "no config.json"),
        ("{", "cannot be read"),
        ("{}", "names no architecture"),
        ('{"architectures": ["GPT2LMHeadModel"]}', "GPT2LMHeadModel is not supported"),
    ],
)
def test_a_bad_model_directory_is_refused(
    tmp_path: Path, config: str | None, sentence: str
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UsageError, match=sentence):
        check_model_directory(str(tmp_path))


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (["--model", "/nothing/here"], 2, "--model /nothing/here: no such directory"),
        (["--model", str(TINY), "--device", "cuda"], 2, "--device cuda"),
        ([], 2, "--model is missing"),
    ],
)
def test_bad_flags_end_in_one_line_on_stderr(flags: list[str], code: int, sentence: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dynamo_tokenspeed.dynamo_package", *flags],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr


def test_help_needs_no_model_and_explains_every_group() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dynamo_tokenspeed.dynamo_package", "--help"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0
    for part in ("Model:", "Capacity:", "Execution:", "Serving:", "Dynamo Runtime Options:"):
        assert part in done.stdout


def test_the_worker_imports_neither_torch_nor_transformers() -> None:
    check = (
        "import sys, dynamo_tokenspeed.worker.llm_engine; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], timeout=20).returncode == 0
