# SPDX-License-Identifier: MIT
"""Calls from Python into generated host code: their PTX, their tensors, and what went wrong.

A launch reaches Python from inside host code, which no exception may cross. So the first one is
kept, later launches of the same call are skipped, and the exception is raised when the host code
has returned.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ts_gpusim.capture.runtime import LaunchRequest
from ts_gpusim.dlpack import View
from ts_gpusim.launch import Launch
from ts_gpusim.memory import MemoryMap
from ts_gpusim.modules import kernel_of


class HostCall:
    def __init__(self, function: str, ptx: str | None) -> None:
        self.function = function
        self.ptx = ptx
        self.failure: BaseException | None = None


class HostCalls:
    """`arguments`: the tensors that the current call, or the next one, was given."""

    def __init__(self, launch: Callable[[Launch, MemoryMap], None]) -> None:
        self._launch = launch
        self._calls: list[HostCall] = []
        self.arguments = MemoryMap()
        self._named: dict[int, tuple[str, object]] = {}  # by id; holding them keeps ids unique

    def name_arguments(self, named: Iterable[tuple[str, object]]) -> None:
        """For messages about them."""
        self._named.update((id(argument), (name, argument)) for name, argument in named)

    def add_argument(self, view: View, tensor: object, wrapper: object) -> None:
        """The host function takes `wrapper`, which wraps `tensor` or is it."""
        unnamed = (f"tensor {len(self.arguments)}", tensor)
        name, _ = self._named.get(id(wrapper)) or self._named.get(id(tensor)) or unnamed
        self.arguments.add_view(view, tensor, name)

    @contextmanager
    def calling(self, function: str, ptx: str | None) -> Iterator[None]:
        """`ptx`: of this compiled function; None where it cannot launch (loading a library)."""
        call = HostCall(function, ptx)
        self._calls.append(call)
        try:
            yield
        except Exception:  # how the host code reports an error of ours
            if call.failure is None:
                raise
        finally:
            self._calls.pop()
            if ptx is not None:
                self.arguments = MemoryMap()
                self._named = {}
        if call.failure is not None:
            raise call.failure

    def on_launch(self, request: LaunchRequest) -> None:
        """From host code: never raises."""
        if not self._calls:
            self.on_problem(
                f"kernel {request.kernel} was launched by host code whose PTX is not known: call "
                "the compiled function itself"
            )
        elif self._calls[-1].failure is None:
            try:
                self._launch(self._bind(request, self._calls[-1]), self.arguments)
            except BaseException as failure:
                self._calls[-1].failure = failure

    def on_problem(self, sentence: str) -> None:
        """From host code: never raises."""
        if not self._calls:
            print(f"ts_gpusim: {sentence}", file=sys.stderr)
        elif self._calls[-1].failure is None:
            self._calls[-1].failure = RuntimeError(sentence)

    @staticmethod
    def _bind(request: LaunchRequest, call: HostCall) -> Launch:
        if call.ptx is None:
            raise RuntimeError(f"{call.function} launches {request.kernel} while it is loaded")
        parameters = kernel_of(call.ptx, request.kernel).parameters
        return Launch(
            kernel=request.kernel,
            ptx=call.ptx,
            grid=request.grid,
            block=request.block,
            cluster=request.cluster,
            shared_bytes=request.shared_bytes,
            attributes=request.attributes,
            parameters=request.arguments([parameter.size for parameter in parameters]),
        )
