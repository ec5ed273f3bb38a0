# SPDX-License-Identifier: MIT
"""The worker process from its command line to its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence

from dynamo_tokenspeed.worker.errors import (
    START_EXIT_CODE,
    STOPPED_EXIT_CODE,
    USAGE_EXIT_CODE,
    StartError,
    Stopped,
    UsageError,
)
from dynamo_tokenspeed.worker.last_line import end_process


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until a signal. Exit code 2: a flag is wrong; 1: the engine cannot start or died."""
    # Nothing is started yet that would have to be ended.
    _on_stop(lambda name: end_process(f"stopped by {name} before it served", STOPPED_EXIT_CODE))
    # Dynamo's logging set-up writes a file for SGLang into the temporary directory and leaves it.
    os.environ.setdefault("DYN_SKIP_SGLANG_LOG_FORMATTING", "1")
    # Without a system port the model card is read from the shared file system; else a warning.
    if os.environ.get("DYN_SYSTEM_PORT", "-1") == "-1":
        os.environ.setdefault("DYN_SELF_HOST_METADATA", "0")
    try:
        import uvloop
        from dynamo.common.backend.worker import Worker

        from dynamo_tokenspeed.worker.llm_engine import TokenSpeedEngine
    except ImportError as error:
        end_process(
            f"{error}; this worker needs ai-dynamo 1.4.2 to 1.6.1 (pip install ai-dynamo)",
            START_EXIT_CODE,
        )

    async def serve() -> None:
        engine, config = await TokenSpeedEngine.from_args(list(argv) if argv is not None else None)
        loop = asyncio.get_running_loop()
        # Dynamo's runtime takes these signals over and shuts down in order, but not before
        # `start` has returned. It also calls the handlers that were there before its own: these,
        # and not asyncio's for SIGINT, which would cancel that shutdown.
        _on_stop(lambda name: loop.call_soon_threadsafe(engine.stop_loading, name))
        try:
            await Worker(engine, config).run()
        finally:
            engine.raise_start_error()

    try:
        uvloop.run(serve())
    except UsageError as error:
        end_process(str(error), USAGE_EXIT_CODE)
    except Stopped as error:
        end_process(str(error), STOPPED_EXIT_CODE)
    except StartError as error:
        end_process(str(error), START_EXIT_CODE)
    except Exception as error:
        if type(error) is not Exception:
            raise
        end_process(str(error), START_EXIT_CODE)  # Dynamo's runtime raises it bare


def _on_stop(stop: Callable[[str], object]) -> None:
    """`stop` gets the signal's name."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stop(signal.Signals(number).name))
