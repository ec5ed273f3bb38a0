# SPDX-License-Identifier: MIT
"""The demo, with a stand-in for the frontend that speaks its protocol."""

from __future__ import annotations

import gc
import io
import itertools
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tokenizers import Tokenizer

from dynamo_tokenspeed.launch import LaunchError
from dynamo_tokenspeed.launch.demo import play as play_module
from dynamo_tokenspeed.launch.demo import report, tools
from dynamo_tokenspeed.launch.demo.chat import Reply, chat
from dynamo_tokenspeed.launch.demo.conversation import SESSIONS, History
from dynamo_tokenspeed.launch.demo.play import Replies, Text, TurnEnded, TurnStarted, play
from dynamo_tokenspeed.launch.demo.screen import Screen

TINY = Path(__file__).parents[2] / "recipes" / "tiny-kimi"
CONTEXT = 4096
WORKER = 7


def event(content: str = "", **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}}], **more}


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 64},
    },
}
GOOD = [event("def "), event("f():", nvext={"worker_id": {"decode_worker_id": WORKER}}), USAGE]


class Stub:
    """Answers every request with `events`, then [DONE] if `whole`."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.status = 200
        self.events: Callable[[dict[str, Any]], list[dict[str, Any]]] = lambda body: GOOD
        self.whole = True
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.requests.append(body)
                self.send_response(stub.status)
                self.end_headers()
                if stub.status != 200:
                    self.wfile.write(b"no such model")
                    return
                for item in stub.events(body):
                    self.wfile.write(b"data: " + json.dumps(item).encode() + b"\n\n")
                if stub.whole:
                    self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def stub():
    stub = Stub()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play_module, "_START_APART", 0.0)
    monkeypatch.setattr(play_module, "_TOOL_SECONDS", (0.0, 0.0))


# One turn


def test_a_reply_is_its_text_and_what_the_frontend_reports(stub: Stub) -> None:
    pieces: list[str] = []
    reply = chat(stub.url, {"model": "m"}, pieces.append)
    assert pieces == ["def ", "f():"]
    assert reply.text == "def f():"
    assert (reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens) == (100, 64, 3)
    assert reply.computed_tokens == 36
    assert reply.instance_id == WORKER
    assert 0 < reply.first_token_time <= reply.total_time


def test_a_reply_without_cached_tokens_has_none(stub: Stub) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": None}
    stub.events = lambda body: [event("x"), {"choices": [], "usage": usage}]
    assert chat(stub.url, {}).cached_tokens == 0


def test_a_refused_request_is_told_with_the_frontends_words(stub: Stub) -> None:
    stub.status = 404
    with pytest.raises(LaunchError, match="answered 404: b'no such model'"):
        chat(stub.url, {})


def test_an_error_within_the_stream_is_told(stub: Stub) -> None:
    stub.events = lambda body: [event("x"), {"error": {"message": "engine shut down"}}]
    with pytest.raises(LaunchError, match="engine shut down"):
        chat(stub.url, {})


def test_a_stream_that_breaks_off_is_told(stub: Stub) -> None:
    stub.whole = False
    with pytest.raises(LaunchError, match="before it was complete"):
        chat(stub.url, {})


def test_a_frontend_that_is_gone_is_told() -> None:
    with pytest.raises(LaunchError, match="connection to the frontend failed"):
        chat("http://127.0.0.1:1", {})


# The conversation


def replies_of(events) -> Replies:
    return {(item.session, item.turn): item.reply for item in events if isinstance(item, TurnEnded)}


def test_four_sessions_have_four_turns_each(stub: Stub) -> None:
    replies = replies_of(play(stub.url, "m", SESSIONS))
    assert sorted(replies) == [(session, turn) for session in "ABCD" for turn in (1, 2, 3, 4)]


def test_a_turn_continues_the_one_before(stub: Stub) -> None:
    list(play(stub.url, "m", SESSIONS[:1]))
    histories = [request["messages"] for request in stub.requests]
    for earlier, later in itertools.pairwise(histories):
        assert later[: len(earlier)] == earlier
        reply, result = later[len(earlier) :]
        assert (reply["role"], reply["content"]) == ("assistant", "def f():")
        assert result["role"] == "tool"
        assert result["tool_call_id"] == reply["tool_calls"][0]["id"]


def test_all_sessions_share_system_prompt_and_tools(stub: Stub) -> None:
    list(play(stub.url, "m", SESSIONS))
    shared = {json.dumps([request["tools"], request["messages"][0]]) for request in stub.requests}
    assert len(shared) == 1


def test_a_replayed_run_sends_the_same_requests(stub: Stub) -> None:
    answers = iter(range(1000))
    stub.events = lambda body: [event(f"answer {next(answers)}"), USAGE]
    first = replies_of(play(stub.url, "m", SESSIONS))
    sent = Counter(json.dumps(request) for request in stub.requests)
    stub.requests.clear()
    replies_of(play(stub.url, "m", SESSIONS, recorded=first))
    assert Counter(json.dumps(request) for request in stub.requests) == sent


def test_every_reply_has_the_same_length_in_every_run(stub: Stub) -> None:
    list(play(stub.url, "m", SESSIONS))
    assert {request["max_tokens"] for request in stub.requests} == {play_module.REPLY_TOKENS}
    assert all(request["ignore_eos"] for request in stub.requests)


def test_a_failing_turn_ends_the_run(stub: Stub) -> None:
    stub.status = 503
    with pytest.raises(LaunchError, match="503"):
        list(play(stub.url, "m", SESSIONS))


def test_what_the_check_finds_is_told_rather_than_the_stream_that_broke(stub: Stub) -> None:
    stub.status = 503

    def check() -> None:
        raise LaunchError("agg-0 died")

    with pytest.raises(LaunchError, match="agg-0 died"):
        list(play(stub.url, "m", SESSIONS, check=check))


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_a_session_fits_the_models_context(session) -> None:
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    history = History(session)
    for call in session.calls:
        history.add_step("", call, tools.call(call.name, call.arguments))
    text = json.dumps([tools.SCHEMA, history.messages])
    tokens = len(tokenizer.encode(text).ids) + session.turns * play_module.REPLY_TOKENS
    assert 1500 < tokens < 0.9 * CONTEXT


# Tools


def test_sessions_read_sources_at_the_same_time() -> None:
    # CPython's parser of 3.11 is not safe where threads change within a garbage collection.
    def collecting(_phase: str, _info: object) -> None:
        sum(range(50))

    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.callbacks.append(collecting)
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    modules = ["shlex", "textwrap", "csv", "argparse", "typing", "ast", "shutil", "tarfile"] * 5
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda module: tools.read_source(module, "nothing"), modules))
    finally:
        gc.callbacks.remove(collecting)
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
    assert found == [[f"{module} defines no nothing"] for module in modules]


def test_the_tools_read_the_standard_library() -> None:
    assert tools.call("read_source", {"module": "shlex", "name": "quote"}).startswith("def quote(")
    assert "class TextWrapper" in tools.call("list_definitions", {"module": "textwrap"})
    assert "import re" in tools.call("find_text", {"module": "fnmatch", "text": "import re"})


def test_every_tool_is_declared_with_the_arguments_that_it_takes() -> None:
    for declared in tools.SCHEMA:
        function = declared["function"]
        taken = getattr(tools, function["name"]).__annotations__.keys() - {"return"}
        assert taken == function["parameters"]["properties"].keys()


def test_a_long_result_is_cut_at_a_line() -> None:
    whole = tools.call("read_source", {"module": "heapq", "name": "merge"}, 100_000)
    cut = tools.call("read_source", {"module": "heapq", "name": "merge"}, 500)
    kept, _, note = cut.rpartition("\n")
    assert whole.startswith(kept + "\n")
    assert note == f"... {whole.count(chr(10)) - kept.count(chr(10))} more lines"
    assert len(kept) <= 500


def test_something_that_is_not_there_is_a_result() -> None:
    result = tools.call("read_source", {"module": "shlex", "name": "nothing"})
    assert result == "shlex defines no nothing"


# What is shown


def reply(first: float, cached: int, instance: int = 1, text: str = "ok") -> Reply:
    return Reply(text, 1_000, cached, 11, first, first + 0.1, instance)


def run(first: float, cached: int) -> report.Run:
    return report.Run(
        {(session, turn): reply(first, cached) for session in "AB" for turn in (1, 2)}, 2.0
    )


def test_the_saving_is_in_tokens_and_in_time() -> None:
    text = report.saving(run(0.1, 900), run(0.4, 500))
    assert "computed 400 of 4,000 prompt tokens, round robin 2,000: 80% less prefill" in text
    assert "after 100 ms instead of 400 ms on average, 75% less waiting" in text


def test_a_loss_is_called_a_loss() -> None:
    text = report.saving(run(0.4, 500), run(0.1, 900))
    assert "400% more prefill" in text
    assert "300% more waiting" in text


def test_the_table_fits_eighty_columns() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(report.table(run(12.3456, 900), run(0.4, 500), lambda instance: "agg-0"))
    lines = console.file.getvalue().splitlines()
    assert any("A1" in line and "12346" in line and "900" in line for line in lines)
    assert "…" not in console.file.getvalue()


def shown(events) -> str:
    console = Console(file=io.StringIO(), width=80)
    screen = Screen(console, lambda instance: f"worker {instance}")
    for item in events:
        screen.show(item)
    return console.file.getvalue()


def started(session: str, turn: int = 1) -> TurnStarted:
    return TurnStarted(session, turn, f"task {session}", None)


def ended(session: str, turn: int = 1) -> TurnEnded:
    return TurnEnded(session, turn, reply(0.1, 0))


def test_one_reply_is_followed_and_not_torn_by_another() -> None:
    text = shown(
        [
            *(started("A"), started("B")),
            *(Text("A", 1, "one "), Text("B", 1, "never mind"), Text("A", 1, "two")),
            *(ended("B"), ended("A")),
        ]
    )
    assert "[A1] task A\none two\n" in text
    assert "never" not in text


def test_a_reply_that_is_turned_to_late_is_shown_from_its_beginning() -> None:
    text = shown(
        [
            *(started("A"), started("B")),
            *(Text("A", 1, "a"), Text("B", 1, "begin "), ended("A")),
            *(Text("B", 1, "end"), ended("B")),
        ]
    )
    assert "[B1] task B\nbegin end\n" in text


def test_every_turn_is_told_of_once(stub: Stub) -> None:
    text = shown(play(stub.url, "m", SESSIONS))
    assert text.count("prompt tokens") == 16
