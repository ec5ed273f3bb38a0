# SPDX-License-Identifier: MIT
"""The registry: who implements which op, and which implementation is chosen, with the reasons."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Traits = Mapping[str, Hashable]
"""What a caller states about its shapes, e.g. `{"page_size": 16, "kv_lora_rank": 512}`."""

ANY_DEVICE: frozenset[str] = frozenset()
FLOATING: frozenset[torch.dtype] = frozenset({torch.float32, torch.bfloat16})


class NoImplementation(LookupError):
    """Nothing registered can serve the spec (or the one asked for by name cannot)."""


class BackendUnavailable(ImportError):
    """Raised by a backend's `register` to say why it offers nothing on this machine."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What an op must serve.

    `device`: torch's device type ("cpu", "cuda"). `dtype`: of the model's activations.
    `architecture`: what the device can execute (`architecture_of`), e.g. {"avx2", "avx512"} or
    {"sm_90", "sm_90a"}. `traits`: shapes that the caller commits to.
    """

    device: str
    dtype: torch.dtype
    architecture: frozenset[str] = frozenset()
    traits: Traits = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Implementation:
    """One way to compute an op, and what it needs.

    `devices`: device types it runs on; empty: any. `architectures`: it needs one of these; empty:
    none. `traits`: the values it supports, by trait; a trait that is not listed is unrestricted,
    and one that is listed must be stated by the spec. `priority`: the highest that can serve wins.
    """

    op: str
    backend: str
    function: Callable[..., Any]
    devices: frozenset[str] = ANY_DEVICE
    architectures: frozenset[str] = frozenset()
    dtypes: frozenset[torch.dtype] = FLOATING
    traits: Mapping[str, frozenset[Hashable]] = field(default_factory=dict)
    priority: int = 0

    def refusal(self, spec: Spec) -> str | None:
        """Why this implementation cannot serve `spec`, as a clause; None: it can."""
        if self.devices and spec.device not in self.devices:
            return f"runs on {_listed(self.devices)}, not on {spec.device}"
        if self.architectures and not (self.architectures & spec.architecture):
            here = _listed(spec.architecture) or "an unknown architecture"
            return f"needs {_listed(self.architectures)}, this device has {here}"
        if spec.dtype not in self.dtypes:
            dtypes = _listed(map(_dtype_name, self.dtypes))
            return f"computes in {dtypes}, not {_dtype_name(spec.dtype)}"
        for name, accepted in self.traits.items():
            if name not in spec.traits:
                return f"needs to know {name} (it supports {_listed(map(str, accepted))})"
            if spec.traits[name] not in accepted:
                return f"supports {name} {_listed(map(str, accepted))}, not {spec.traits[name]}"
        return None


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen for an op, why, and why each other candidate was passed over (by backend)."""

    implementation: Implementation
    why: str
    passed_over: Mapping[str, str]

    def __str__(self) -> str:
        others = "".join(f"; not {name}: {reason}" for name, reason in self.passed_over.items())
        return f"{self.implementation.op}: {self.implementation.backend} ({self.why}){others}"


class Registry:
    """Implementations by op and backend. `select` is a pure function of what is registered."""

    def __init__(self) -> None:
        self._by_op: dict[str, dict[str, Implementation]] = {}
        self._unavailable: dict[str, str] = {}

    @property
    def unavailable(self) -> Mapping[str, str]:
        """Backends that registered nothing, with the reason."""
        return dict(self._unavailable)

    def register(self, implementation: Implementation) -> None:
        """Adds an implementation. ValueError when its op and backend are already taken."""
        backends = self._by_op.setdefault(implementation.op, {})
        if implementation.backend in backends:
            raise ValueError(
                f"backend {implementation.backend} already implements {implementation.op}; "
                "register under another backend name"
            )
        backends[implementation.backend] = implementation

    def mark_unavailable(self, backend: str, reason: str) -> None:
        """Records that a whole backend cannot be used here; `select` repeats the reason."""
        self._unavailable[backend] = reason

    def implementations(self, op: str) -> tuple[Implementation, ...]:
        """All implementations of `op`, in the order of their registration."""
        return tuple(self._by_op.get(op, {}).values())

    def select(self, op: str, spec: Spec, backend: str | None = None) -> Selection:
        """The implementation of `op` with the highest priority that can serve `spec`.

        `backend` overrides the choice by name. NoImplementation, with one sentence that lists what
        there is, when nothing fits or the named backend is unknown, unavailable or unfit.
        """
        candidates = self._by_op.get(op)
        if not candidates:
            raise NoImplementation(f"there is no op {op}; there are {_listed(self._by_op)}")
        refusals = {c.backend: c.refusal(spec) for c in candidates.values()}
        if backend is not None:
            return self._named(op, backend, candidates, refusals)
        able = [c for c in candidates.values() if refusals[c.backend] is None]
        if not able:
            raise NoImplementation(f"no implementation of {op} fits: {self._reasons(refusals)}")
        best = max(able, key=lambda c: c.priority)  # the first registered among equals
        passed_over = dict(self._unavailable)
        for other in candidates.values():
            if other is not best:
                reason = refusals[other.backend]
                passed_over[other.backend] = reason or f"priority {other.priority}"
        return Selection(best, f"highest priority that fits, {best.priority}", passed_over)

    def _named(
        self,
        op: str,
        backend: str,
        candidates: Mapping[str, Implementation],
        refusals: Mapping[str, str | None],
    ) -> Selection:
        if backend not in candidates or refusals[backend] is not None:
            if backend in candidates:
                reason = str(refusals[backend])
            else:
                reason = self._unavailable.get(backend, f"it does not implement {op}")
            raise NoImplementation(
                f"backend {backend} cannot serve {op}: {reason}; there is "
                f"{self._reasons({k: v for k, v in refusals.items() if k != backend})}"
            )
        others = {name: "another backend was asked for" for name in candidates if name != backend}
        return Selection(candidates[backend], "asked for by name", others)

    def _reasons(self, refusals: Mapping[str, str | None]) -> str:
        shown = {name: reason or "fits" for name, reason in refusals.items()}
        shown |= {k: v for k, v in self._unavailable.items() if k not in shown}
        return "; ".join(f"{name} ({reason})" for name, reason in shown.items()) or "nothing else"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
