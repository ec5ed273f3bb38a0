# SPDX-License-Identifier: MIT
"""A deployment on this machine: Dynamo's frontend and workers, started, ready, stopped.

    with Deployment.from_recipe("recipes/tiny-kimi/agg.yaml", workers=2) as deployment:
        client = openai.OpenAI(base_url=f"{deployment.url}/v1", api_key="none")

Programs find each other through Dynamo's embedded planes: files in the run
directory for discovery, TCP for requests, ZMQ for events. No server is needed, and
two deployments do not see each other.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dynamo_tokenspeed.launch import loopback
from dynamo_tokenspeed.launch.dynamo_programs import (
    Frontend,
    FrontendCommand,
    Worker,
    WorkerCommand,
)
from dynamo_tokenspeed.launch.errors import LaunchError, ProgramExited
from dynamo_tokenspeed.launch.program import Program, stop_all
from dynamo_tokenspeed.launch.recipe import Recipe, load_recipe

# For a worker that takes its planes from flags only, as Dynamo's sample engine does.
PLANE_FLAGS = ("--discovery-backend", "file", "--request-plane", "tcp", "--event-plane", "zmq")

_POLL_SECONDS = 0.05
_STOP_SECONDS = 15.0


class Deployment:
    """A frontend and workers that run within a `with` block, or from `start` to `stop`.

    `env` is added to the environment of every program; `on_progress` is told in a line
    what happens. The logs are in `run_dir`; without one, they go to a temporary
    directory that survives only a launch that failed.
    """

    def __init__(
        self,
        workers: Sequence[WorkerCommand] = (),
        frontend: FrontendCommand | None = None,
        *,
        start_timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        run_dir: str | Path | None = None,
        on_progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.frontends: list[Frontend] = []
        self.workers: list[Worker] = []
        self.start_timeout = start_timeout
        self._given_run_dir = None if run_dir is None else Path(run_dir)
        self._own_run_dir: Path | None = None  # made by `start`, removed by `stop`
        self._worker_commands = list(workers)
        self._frontend_command = frontend or FrontendCommand()
        self._env = dict(env or {})
        self._on_progress = on_progress
        self._last_logs: dict[str, str] = {}  # of programs that were stopped

    @classmethod
    def from_recipe(
        cls,
        recipe: str | Path | Recipe,
        *,
        workers: int | None = None,
        model: str | Path | None = None,
        router_mode: str | None = None,
        worker_flags: Sequence[str] = (),
        frontend_flags: Sequence[str] = (),
        host: str = loopback.HOST,
        port: int | None = None,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        run_dir: str | Path | None = None,
        on_progress: Callable[[str], None] = lambda line: None,
    ) -> Deployment:
        """What the recipe says, except where an argument says otherwise.

        `workers` is the number of replicas, `model` another checkpoint directory (served
        under its own name), `python` the executable of another environment. The flags
        come last on the command lines, where they win.
        """
        if not isinstance(recipe, Recipe):
            recipe = load_recipe(recipe)
        if workers is not None:
            recipe = recipe.with_replicas(workers)
        if model is not None:
            recipe = recipe.with_model(Path(model))
        if router_mode is not None:
            frontend_flags = ["--router-mode", router_mode, *frontend_flags]
        return cls(
            [
                WorkerCommand(
                    argv=["-m", "dynamo.tokenspeed", *recipe.worker_argv(worker), *worker_flags],
                    env=worker.env,
                    name=worker.name,
                    replicas=worker.replicas,
                    python=python,
                )
                for worker in recipe.workers
            ],
            FrontendCommand(
                flags=[*recipe.frontend_argv(), *frontend_flags],
                env=recipe.frontend.env,
                host=host,
                port=port,
                python=python,
            ),
            start_timeout=recipe.start_timeout,
            env=env,
            run_dir=run_dir,
            on_progress=on_progress,
        )

    def __enter__(self) -> Deployment:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self.stop(keep_logs=isinstance(error, LaunchError))

    @property
    def url(self) -> str:
        """The first frontend's address, without a path."""
        return self.frontends[0].url

    @property
    def model(self) -> str:
        """The name that requests put into "model"."""
        return self.frontends[0].models()[0]

    @property
    def run_dir(self) -> Path:
        """Where the logs are. Without one given, there is none before `start`."""
        run_dir = self._given_run_dir or self._own_run_dir
        if run_dir is None:
            raise RuntimeError("this deployment has not been started, so it has no run directory")
        return run_dir

    @property
    def programs(self) -> list[Program]:
        return [*self.frontends, *self.workers]

    def logs(self) -> dict[str, str]:
        """The end of every program's log by the program's name, also after it was stopped."""
        return self._last_logs | {program.name: program.log() for program in self.programs}

    def start(self) -> None:
        """Start everything; returns when it serves. After an error nothing is left running."""
        if self._given_run_dir is None:
            self._own_run_dir = Path(tempfile.mkdtemp(prefix="tokenspeed-launch-"))
        else:
            self._given_run_dir.mkdir(parents=True, exist_ok=True)
        try:
            frontend = self._spawn_frontend(self._frontend_command)
            workers = [
                self._spawn_worker(command)
                for command in self._worker_commands
                for _ in range(command.replicas)
            ]
            self._on_progress(f"starting {', '.join(program.name for program in self.programs)}")
            self._await_workers(workers)
            self._await_frontend(frontend)
        except BaseException as error:
            self.stop(keep_logs=isinstance(error, LaunchError))
            raise

    def stop(self, keep_logs: bool = False) -> None:
        """Stop everything. Safe to call at any time, and more than once."""
        try:
            stop_all(self.programs, _STOP_SECONDS)
        finally:
            self._last_logs = self.logs()
            self.frontends, self.workers = [], []
            self._clean_up(keep_logs)

    def add_frontend(self, command: FrontendCommand) -> Frontend:
        """Start one more frontend over the same workers; returns when it serves them all."""
        frontend = self._spawn_frontend(command)
        self._await_frontend(frontend)
        return frontend

    def add_workers(self, command: WorkerCommand) -> list[Worker]:
        """Start more workers; returns when every frontend serves them."""
        workers = [self._spawn_worker(command) for _ in range(command.replicas)]
        self._await_workers(workers)
        for frontend in self.frontends:
            self._await_frontend(frontend)
        return workers

    def stop_program(self, program: Program, grace: float = _STOP_SECONDS) -> None:
        """Stop one program; the others go on without it. With `grace` 0 it is killed at once."""
        stop_all([program], grace)
        self.forget(program)

    def forget(self, program: Program) -> None:
        """No longer expect `program`, which has ended, to run."""
        self._last_logs[program.name] = program.log()
        self.frontends = [other for other in self.frontends if other is not program]
        self.workers = [other for other in self.workers if other is not program]

    def check(self) -> None:
        """Raise `ProgramExited` if a program has ended by itself."""
        for program in self.programs:
            if program.returncode is not None:
                raise ProgramExited(program, "while it should serve")

    def wait(self) -> None:
        """Serve until a program ends by itself, which raises `ProgramExited`."""
        while True:
            self.check()
            time.sleep(0.2)

    def _clean_up(self, keep_logs: bool) -> None:
        if self._given_run_dir is not None:
            shutil.rmtree(self._discovery, ignore_errors=True)
        elif self._own_run_dir is not None and keep_logs:
            shutil.rmtree(self._discovery, ignore_errors=True)
            self._on_progress(f"logs are in {self._own_run_dir}")
        elif self._own_run_dir is not None:
            shutil.rmtree(self._own_run_dir, ignore_errors=True)

    @property
    def _discovery(self) -> Path:
        return self.run_dir / "discovery"

    def _spawn_frontend(self, command: FrontendCommand) -> Frontend:
        port = loopback.free_port() if command.port is None else command.port
        if not loopback.is_free(command.host, port):
            raise LaunchError(
                f"port {port} of {command.host} is in use; choose another with --port"
            )
        name = self._unused_name(command.name)
        frontend = Frontend(name, command, port, self._environment(command.env), self.run_dir)
        self.frontends.append(frontend)
        return frontend

    def _spawn_worker(self, command: WorkerCommand) -> Worker:
        port = loopback.free_port()
        name = self._unused_name(command.name, first=0)
        worker = Worker(name, command, port, self._environment(command.env), self.run_dir)
        self.workers.append(worker)
        return worker

    def _unused_name(self, name: str, first: int | None = None) -> str:
        used = {program.name for program in self.programs} | self._last_logs.keys()
        number = 1 if first is None else first
        candidate = name if first is None else f"{name}-{number}"
        while candidate in used:
            number += 1
            candidate = f"{name}-{number}"
        return candidate

    def _environment(self, own: Mapping[str, str]) -> dict[str, str]:
        env = dict(os.environ)
        env.pop("DYN_SYSTEM_PORT", None)
        # Everybody is told to stop at once: no time is needed for routers to notice.
        env.setdefault("DYN_GRACEFUL_SHUTDOWN_GRACE_PERIOD_SECS", "0")
        for name in ("NO_PROXY", "no_proxy"):
            env[name] = ",".join(filter(None, [env.get(name), loopback.HOST, "localhost"]))
        env |= {
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(self._discovery),
            "DYN_REQUEST_PLANE": "tcp",
            "DYN_EVENT_PLANE": "zmq",
            "DYN_SYSTEM_HOST": loopback.HOST,
            "DYN_TCP_RPC_HOST": loopback.HOST,
            "DYN_TCP_RESPONSE_STREAM_HOST": "lo",
            "DYN_EVENT_PLANE_HOST": loopback.HOST,
            "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
            "PYTHONUNBUFFERED": "1",
        }
        return env | self._env | dict(own)

    def _await_workers(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            self._await(worker, worker.serves, [*self.frontends, *workers])
            self._on_progress(f"{worker.name} serves (process {worker.pid})")

    def _await_frontend(self, frontend: Frontend) -> None:
        self._await(frontend, lambda: frontend.serves(self.workers), self.programs)
        self._on_progress(f"{frontend.name} serves (process {frontend.pid}) at {frontend.url}")

    def _await(
        self, program: Program, is_ready: Callable[[], bool], needed: Sequence[Program]
    ) -> None:
        """Poll until `is_ready`, or until one of the `needed` programs ends, or too long."""
        deadline = time.monotonic() + self.start_timeout
        while not is_ready():
            for other in needed:
                if other.returncode is not None:
                    raise ProgramExited(other, "before it was ready")
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"{program.name} is not ready after {self.start_timeout:.0f} s; "
                    f"its log is {program.log_path}"
                )
            time.sleep(_POLL_SECONDS)
