# SPDX-License-Identifier: MIT
"""Dynamo's two kinds of programs: how each is started and how it says that it serves."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynamo_tokenspeed.launch import loopback
from dynamo_tokenspeed.launch.program import Program


@dataclass(frozen=True, kw_only=True)
class FrontendCommand:
    """How to start a frontend: `flags` follow `python -m dynamo.frontend`."""

    flags: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    name: str = "frontend"
    host: str = loopback.HOST
    port: int | None = None  # None: any free one
    python: str = sys.executable


@dataclass(frozen=True, kw_only=True)
class WorkerCommand:
    """How to start workers: `argv` follows the Python executable, `-m dynamo.tokenspeed …`."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    name: str = "worker"  # the first is called worker-0
    replicas: int = 1
    python: str = sys.executable


class Worker(Program):
    """A running worker."""

    def __init__(
        self, name: str, command: WorkerCommand, port: int, env: Mapping[str, str], folder: Path
    ) -> None:
        super().__init__(
            name,
            [command.python, *command.argv],
            {**env, "DYN_SYSTEM_PORT": str(port)},
            folder / f"{name}.log",
        )
        self.system_port = port  # Dynamo's system server: /health, /metrics, /engine/control/…
        # What the frontend's answers call worker_id; None until the worker serves.
        self.instance_id: int | None = None

    @property
    def system_url(self) -> str:
        return f"http://{loopback.HOST}:{self.system_port}"

    def serves(self) -> bool:
        """Whether its endpoint takes requests. False as well when it does not answer."""
        if self.instance_id is None:
            try:
                # Before it has an endpoint, /health would only fill its log with errors.
                endpoint = re.search(r'dynamo_endpoint=".*worker_id="([0-9a-f]+)"', self.metrics())
                if endpoint is None:
                    return False
                loopback.get_text(f"{self.system_url}/health")  # 503 until it is ready
            except OSError:
                return False
            self.instance_id = int(endpoint[1], 16)
        return True

    def metrics(self) -> str:
        """Its metrics in Prometheus' text format."""
        return loopback.get_text(f"{self.system_url}/metrics")

    def control(self, name: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer of an engine control, such as `clear_kv_blocks`."""
        return loopback.post_json(f"{self.system_url}/engine/control/{name}", body or {})


class Frontend(Program):
    """A running frontend."""

    def __init__(
        self, name: str, command: FrontendCommand, port: int, env: Mapping[str, str], folder: Path
    ) -> None:
        place = ["--http-host", command.host, "--http-port", str(port)]
        super().__init__(
            name,
            [command.python, "-m", "dynamo.frontend", *place, *command.flags],
            env,
            folder / f"{name}.log",
        )
        self.url = f"http://{loopback.HOST if command.host == '0.0.0.0' else command.host}:{port}"

    def models(self) -> list[str]:
        """The names of the models that it serves now."""
        return [model["id"] for model in loopback.get_json(f"{self.url}/v1/models")["data"]]

    def instances(self) -> set[int]:
        """The workers that it has discovered, by instance id."""
        health = loopback.get_json(f"{self.url}/health")
        return {instance["instance_id"] for instance in health["instances"]}

    def metrics(self) -> str:
        """Its metrics in Prometheus' text format."""
        return loopback.get_text(f"{self.url}/metrics")

    def serves(self, workers: Sequence[Worker]) -> bool:
        """Whether requests can reach each of `workers`. False as well when it does not answer."""
        wanted = {worker.instance_id for worker in workers}
        try:
            return wanted <= self.instances() and (not workers or bool(self.models()))
        except (OSError, json.JSONDecodeError):
            return False
