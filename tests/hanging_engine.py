# SPDX-License-Identifier: MIT
"""The real engine process, until it hangs in native code that lets no other thread run.

`HANG`: "step" hangs inside a step, "loop" in the step loop outside of one, both after 30 steps.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

from dynamo_tokenspeed.engine.__main__ import main
from dynamo_tokenspeed.engine.executor import Executor
from dynamo_tokenspeed.engine.kv_events import KVEventPublisher

STEPS = 30


def hanging(method: Callable[..., Any]) -> Callable[..., Any]:
    steps = 0

    def call(self: Any, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > STEPS:
            ctypes.PyDLL(None).pause()  # with the GIL held
        return method(self, *arguments)

    return call


if __name__ == "__main__":
    if os.environ["HANG"] == "step":
        Executor.launch = hanging(Executor.launch)  # type: ignore[method-assign]
    else:
        KVEventPublisher.publish = hanging(KVEventPublisher.publish)  # type: ignore[method-assign]
    sys.exit(main())
