# SPDX-License-Identifier: MIT
"""Where backends come from: this package, and entry points of other distributions.

A backend is a callable `register(registry)` that registers its implementations, or raises
`BackendUnavailable` (or any ImportError) with the reason why it offers nothing here. Ours are the
modules `ts_kernels.<name>`; out-of-tree ones are entry points of the group `ts_kernels.plugins`,
whose name is the backend's name.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from ts_kernels.registry import Registry

ENTRY_POINT_GROUP = "ts_kernels.plugins"
BUILTIN_BACKENDS = ("reference", "torch", "native", "cutedsl")


def load_backends(registry: Registry) -> None:
    """Registers every backend that can be found; the others are marked with the reason.

    A broken plug-in never takes the other backends down with it; a defect of our own is raised.
    """
    for name in BUILTIN_BACKENDS:
        try:
            import_module(f"ts_kernels.{name}").register(registry)
        except ImportError as error:
            registry.mark_unavailable(name, str(error))
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry_point.load()(registry)
        except ImportError as error:
            registry.mark_unavailable(entry_point.name, str(error))
        except Exception as error:
            registry.mark_unavailable(entry_point.name, f"it failed to register: {error!r}")
