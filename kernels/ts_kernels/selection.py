# SPDX-License-Identifier: MIT
"""The process's registry, and the ways to choose from it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from ts_kernels.architecture import architecture_of
from ts_kernels.plugins import load_backends
from ts_kernels.registry import NoImplementation, Registry, Selection, Spec, Traits
from ts_kernels.signatures import OP_GROUPS, OP_NAMES, Ops


@cache
def default_registry() -> Registry:
    """All backends of this installation, loaded at the first use."""
    registry = Registry()
    load_backends(registry)
    return registry


def select(
    op: str, spec: Spec, backend: str | None = None, registry: Registry | None = None
) -> Selection:
    """The best implementation of `op` for `spec`, with the reasons; see `Registry.select`."""
    return (registry or default_registry()).select(op, spec, backend)


def bind(
    device: torch.device | str,
    dtype: torch.dtype,
    overrides: Mapping[str, str] | None = None,
    traits: Traits | None = None,
    registry: Registry | None = None,
) -> Ops:
    """Chooses an implementation for every op, once.

    overrides: backend names by op ("mla_decode") or by group of ops ("attention": all mla_*,
    "moe": all moe_*); an op's own entry beats its group's. A group's backend serves the ops of
    the group that it implements, at least one; the others are chosen as without it. traits: what
    the model knows about its shapes, e.g. `{"page_size": 16, "kv_lora_rank": 512}`.

    NoImplementation, one sentence that lists what there is: an override names no op or group, or a
    backend that is unknown, unavailable or unfit.
    """
    registry = registry or default_registry()
    device = torch.device(device)
    spec = Spec(device.type, dtype, architecture_of(str(device)), traits or {})
    wanted = _by_op(registry, spec, overrides or {})
    selections = {op: registry.select(op, spec, wanted.get(op)) for op in OP_NAMES}
    functions: dict[str, Any] = {op: s.implementation.function for op, s in selections.items()}
    return Ops(**functions, selections=selections)


def _by_op(registry: Registry, spec: Spec, overrides: Mapping[str, str]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for group, backend in overrides.items():
        if group in OP_GROUPS:
            wanted |= dict.fromkeys(_served(registry, spec, group, backend), backend)
        elif group not in OP_NAMES:
            raise NoImplementation(
                f"there is no op or group of ops {group}; there are "
                f"{', '.join([*OP_GROUPS, *OP_NAMES])}"
            )
    return wanted | {op: backend for op, backend in overrides.items() if op in OP_NAMES}


def _served(registry: Registry, spec: Spec, group: str, backend: str) -> list[str]:
    offered = [
        op
        for op in OP_GROUPS[group]
        if any(i.backend == backend for i in registry.implementations(op))
    ]
    if not offered:
        registry.select(OP_GROUPS[group][0], spec, backend)  # raises, and says what there is
    return offered
