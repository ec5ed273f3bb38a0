# SPDX-License-Identifier: MIT
"""Deployments, with Dynamo's real frontend and its sample engine as the worker."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from dynamo_tokenspeed.launch import (
    PLANE_FLAGS,
    Deployment,
    FrontendCommand,
    LaunchError,
    ProgramExited,
    WorkerCommand,
    load_recipe,
    loopback,
)
from dynamo_tokenspeed.launch.follow_logs import follow_logs
from dynamo_tokenspeed.launch.program import Program

TINY = Path(__file__).parents[2] / "recipes" / "tiny-kimi"
SAMPLE = ("-m", "dynamo.common.backend.sample_main", "--model-name", str(TINY), *PLANE_FLAGS)
SAMPLE_WORKER = WorkerCommand(argv=SAMPLE, name="sample")
TWO_SAMPLE_WORKERS = WorkerCommand(argv=SAMPLE, name="sample", replicas=2)


def chat(url: str) -> dict:
    body = {
        "model": str(TINY),
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 4,
        "nvext": {"extra_fields": ["worker_id"]},
    }
    return loopback.post_json(f"{url}/v1/chat/completions", body)


def worker_of(answer: dict) -> int:
    return answer["nvext"]["worker_id"]["decode_worker_id"]


def is_running(program: Program) -> bool:
    return Path(f"/proc/{program.pid}").exists()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory):
    """Two sample workers behind a KV-router frontend; tests add, but take nothing away."""
    frontend = FrontendCommand(flags=["--router-mode", "kv"])
    run_dir = tmp_path_factory.mktemp("run")
    with Deployment([TWO_SAMPLE_WORKERS], frontend, run_dir=run_dir) as deployment:
        yield deployment


def test_a_started_deployment_answers(deployment: Deployment) -> None:
    assert chat(deployment.url)["usage"]["completion_tokens"] == 4


def test_it_says_which_model_it_serves(deployment: Deployment) -> None:
    assert deployment.model == str(TINY)


def test_its_workers_have_names_and_instance_ids(deployment: Deployment) -> None:
    assert [worker.name for worker in deployment.workers[:2]] == ["sample-0", "sample-1"]
    ids = {worker.instance_id for worker in deployment.workers}
    assert ids == deployment.frontends[0].instances()
    assert worker_of(chat(deployment.url)) in ids


def test_every_worker_takes_requests_from_the_start(deployment: Deployment) -> None:
    frontend = deployment.add_frontend(FrontendCommand(flags=["--router-mode", "round-robin"]))
    served_by = {worker_of(chat(frontend.url)) for _ in deployment.workers}
    assert served_by == {worker.instance_id for worker in deployment.workers}


def test_a_worker_has_metrics_on_its_system_port(deployment: Deployment) -> None:
    assert "dynamo_component_requests_total" in deployment.workers[0].metrics()


def test_an_unknown_control_is_an_error(deployment: Deployment) -> None:
    with pytest.raises(OSError, match="404"):
        deployment.workers[0].control("no_such_control")


def test_everything_listens_on_loopback_except_the_event_plane(deployment: Deployment) -> None:
    # ZMQ's PUB sockets bind to all interfaces in Dynamo 1.4 to 1.6, whatever the host is.
    for port in (deployment.workers[0].system_port, int(deployment.url.rpartition(":")[2])):
        listening = [
            line.split()[1]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
        ]
        assert listening == [f"0100007F:{port:04X}"]


def test_logs_can_be_followed(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    shown = ""
    deadline = time.monotonic() + 60
    with follow_logs(deployment):
        while "sample-0 | " not in shown and time.monotonic() < deadline:
            time.sleep(0.02)  # the followers need this thread to let go of the interpreter
            shown += capsys.readouterr().err
    assert "frontend | " in shown
    assert "sample-0 | " in shown


def test_two_deployments_do_not_see_each_other(deployment: Deployment) -> None:
    with Deployment([SAMPLE_WORKER]) as other:
        assert len(other.frontends[0].instances()) == 1
        assert not other.frontends[0].instances() & deployment.frontends[0].instances()


def test_a_worker_can_be_added_and_taken_away() -> None:
    with Deployment([SAMPLE_WORKER]) as deployment:
        (added,) = deployment.add_workers(SAMPLE_WORKER)
        assert added.name == "sample-1"
        assert {worker_of(chat(deployment.url)) for _ in range(2)} == {
            worker.instance_id for worker in deployment.workers
        }
        deployment.stop_program(added)
        assert not is_running(added)
        deployment.check()


@pytest.fixture(scope="module")
def finished():
    """A deployment whose block has ended, with what was seen of it before."""
    with Deployment([SAMPLE_WORKER], env={"TEST_MARK": "yes"}) as deployment:
        programs, run_dir = deployment.programs, deployment.run_dir
        environments = [
            Path(f"/proc/{program.pid}/environ").read_bytes().split(b"\0") for program in programs
        ]
    return deployment, programs, run_dir, environments


def test_nothing_is_left_when_the_block_ends(finished) -> None:
    _, programs, run_dir, _ = finished
    assert len(programs) == 2
    assert [program.name for program in programs if is_running(program)] == []
    assert not run_dir.exists()


def test_stopping_what_was_not_started_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "theirs").touch()
    Deployment([SAMPLE_WORKER], run_dir=tmp_path).stop()
    Deployment([SAMPLE_WORKER]).stop()
    assert (tmp_path / "theirs").exists()


def test_logs_can_be_read_after_the_end(finished) -> None:
    logs = finished[0].logs()
    assert "Starting HTTP" in logs["frontend"]
    assert "Serving" in logs["sample-0"]


def test_the_environment_given_reaches_every_program(finished) -> None:
    assert [b"TEST_MARK=yes" in environment for environment in finished[3]] == [True, True]


def test_nothing_is_left_when_the_block_raises() -> None:
    with pytest.raises(ZeroDivisionError), Deployment([SAMPLE_WORKER]) as deployment:
        programs, run_dir = deployment.programs, deployment.run_dir
        raise ZeroDivisionError
    assert [program.name for program in programs if is_running(program)] == []
    assert not run_dir.exists()


def test_a_worker_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    broken = WorkerCommand(argv=["-c", "raise SystemExit('no such model')"], name="broken")
    deployment = Deployment([SAMPLE_WORKER, broken], run_dir=tmp_path)
    with pytest.raises(ProgramExited) as caught:
        deployment.start()
    message = str(caught.value)
    assert message.startswith("broken-0 exited with code 1 before it was ready.")
    assert message.endswith("\n  no such model")
    assert str(tmp_path / "broken-0.log") in message


def test_nothing_is_left_of_a_start_that_failed(tmp_path: Path) -> None:
    started: list[Program] = []

    class Watched(Deployment):
        def stop(self, keep_logs: bool = False) -> None:
            started.extend(self.programs)
            super().stop(keep_logs)

    broken = WorkerCommand(argv=["-c", "raise SystemExit(1)"])
    with pytest.raises(ProgramExited):
        Watched([TWO_SAMPLE_WORKERS, broken], run_dir=tmp_path).start()
    assert len(started) == 4
    assert [program.name for program in started if is_running(program)] == []


def test_a_worker_that_never_serves_ends_the_start_in_time(tmp_path: Path) -> None:
    silent = WorkerCommand(argv=["-c", "import time; time.sleep(60)"], name="silent")
    began = time.monotonic()
    with pytest.raises(LaunchError, match=r"silent-0 is not ready after 1 s; its log is "):
        Deployment([silent], start_timeout=1, run_dir=tmp_path).start()
    assert time.monotonic() - began < 5


def test_a_worker_that_dies_while_serving_is_named(tmp_path: Path) -> None:
    told = "sample-0 died of signal 9 while it should serve"
    with (
        pytest.raises(ProgramExited, match=told),
        Deployment([SAMPLE_WORKER], run_dir=tmp_path) as deployment,
    ):
        os.kill(deployment.workers[0].pid, signal.SIGKILL)
        deployment.wait()


def test_a_port_in_use_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((loopback.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        frontend = FrontendCommand(port=port)
        with pytest.raises(LaunchError, match=rf"port {port} of 127.0.0.1 is in use.* --port"):
            Deployment([SAMPLE_WORKER], frontend, run_dir=tmp_path).start()


def test_a_given_port_and_run_directory_are_used(tmp_path: Path) -> None:
    port, run_dir = loopback.free_port(), tmp_path / "run"
    with Deployment([SAMPLE_WORKER], FrontendCommand(port=port), run_dir=run_dir) as deployment:
        assert deployment.url == f"http://127.0.0.1:{port}"
        assert deployment.frontends[0].models() == [str(TINY)]
    logs = sorted(path.name for path in run_dir.iterdir())
    assert logs == ["frontend.log", "sample-0.log"]


def commands_of(deployment: Deployment) -> tuple[list[WorkerCommand], FrontendCommand]:
    return deployment._worker_commands, deployment._frontend_command


def test_a_recipe_becomes_commands() -> None:
    recipe = load_recipe(TINY / "agg.yaml")
    (worker,), frontend = commands_of(Deployment.from_recipe(TINY / "agg.yaml"))
    assert worker.argv == ["-m", "dynamo.tokenspeed", *recipe.worker_argv(recipe.workers[0])]
    assert worker.replicas == recipe.workers[0].replicas
    assert frontend.flags == recipe.frontend_argv()


def test_arguments_win_over_the_recipe(tmp_path: Path) -> None:
    deployment = Deployment.from_recipe(
        TINY / "agg.yaml",
        workers=3,
        model=tmp_path,
        router_mode="round-robin",
        worker_flags=["--max-num-seqs", "2"],
        frontend_flags=["--migration-limit", "3"],
        python=sys.executable + "-other",
    )
    (worker,), frontend = commands_of(deployment)
    assert worker.replicas == 3
    assert worker.python == frontend.python == sys.executable + "-other"
    assert list(worker.argv[2:6]) == [
        "--model",
        str(tmp_path),
        "--served-model-name",
        tmp_path.name,
    ]
    assert list(worker.argv[-2:]) == ["--max-num-seqs", "2"]
    assert list(frontend.flags[-4:]) == ["--router-mode", "round-robin", "--migration-limit", "3"]
