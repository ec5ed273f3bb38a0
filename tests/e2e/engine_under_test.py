# SPDX-License-Identifier: MIT
"""A real engine process with the test in the worker's place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import zmq

from dynamo_tokenspeed.protocol import (
    Admitted,
    EngineConfig,
    EngineMessage,
    StepOutput,
    Submit,
    WorkerMessage,
    decode_engine_message,
    encode,
)

_SECONDS = 30.0


class EngineUnderTest:
    """`python -m dynamo_tokenspeed.engine`, started as the worker starts it."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.sockets = folder / "sockets"
        self.sockets.mkdir()
        self.log_path = folder / "engine.log"
        endpoints = {name: f"ipc://{self.sockets}/{name}" for name in ("inbox", "outbox")}
        self.config = EngineConfig(**endpoints, **config)
        self._context = zmq.Context()
        self._sender = self._bind(zmq.PUSH, self.config.inbox)
        self._receiver = self._bind(zmq.PULL, self.config.outbox)
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dynamo_tokenspeed.engine"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(self.config) + b"\n")
        self.process.stdin.flush()

    def __enter__(self) -> EngineUnderTest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._context.destroy(linger=0)

    def send(self, message: WorkerMessage) -> None:
        self._sender.send(encode(message))

    def receive(self, seconds: float = _SECONDS) -> EngineMessage:
        """The next message but for `Admitted`; AssertionError with the log when none comes."""
        while True:
            assert self._receiver.poll(seconds * 1000), f"no message; the log:\n{self.log()}"
            message = decode_engine_message(self._receiver.recv())
            if not isinstance(message, Admitted):
                return message

    def is_silent(self, seconds: float) -> bool:
        return not self._receiver.poll(seconds * 1000)

    def close_life_line(self) -> None:
        """What the kernel does when the worker ends, however it ends."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self, seconds: float = _SECONDS) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def answer(self, request_id: int) -> tuple[list[int], list[StepOutput]]:
        """The tokens of one running request until its end, and all steps until then."""
        tokens, steps = [], []
        while True:
            step = self.receive()
            assert isinstance(step, StepOutput), step
            steps.append(step)
            mine = np.frombuffer(step.request_ids, np.uint64) == request_id
            tokens += np.frombuffer(step.token_ids, np.int32)[mine].tolist()
            if np.frombuffer(step.finish_reasons, np.uint8)[mine].any():
                return tokens, steps

    def _bind(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.bind(endpoint)
        return socket


def submit(request_id: int, prompt: list[int], max_tokens: int = 8, **fields: Any) -> Submit:
    """A request as the worker sends it."""
    return Submit(
        request_id=request_id,
        token_ids=np.array(prompt, np.int32).tobytes(),
        max_tokens=max_tokens,
        **fields,
    )
