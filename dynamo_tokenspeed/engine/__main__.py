# SPDX-License-Identifier: MIT
"""The engine process: `python -m dynamo_tokenspeed.engine`, started by the worker.

Reads one line of JSON (`EngineConfig`) from stdin; the rest of stdin is the life line.
"""

from __future__ import annotations

import logging
import signal
import sys

import msgspec
import zmq

from dynamo_tokenspeed.engine import lifeline
from dynamo_tokenspeed.engine.outbox import Outbox
from dynamo_tokenspeed.protocol import EngineConfig, Failed, Heartbeat

log = logging.getLogger("dynamo_tokenspeed.engine")


def main() -> int:
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineConfig)
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s engine: %(message)s"
    )
    # Ctrl-C in a terminal reaches the whole process group; the worker decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lifeline.hold(config)

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    outbox = Outbox(context, config.outbox)
    try:
        _serve(config, context, outbox)
    except Exception as error:
        # The worker says the sentence, as its own last line; the log keeps what is no sentence.
        expected = _is_expected(error)
        if not expected:
            log.exception("a fault in the engine")
        outbox.send(Failed(str(error) if expected else f"{type(error).__name__}: {error}"))
        return 1
    finally:
        outbox.close()
        context.destroy(linger=1000)
    return 0


def _serve(config: EngineConfig, context: zmq.Context[zmq.Socket[bytes]], outbox: Outbox) -> None:
    # Imported here so that the life line is held before torch takes its second to load.
    import ts_kernels

    from dynamo_tokenspeed.engine import startup, step_loop
    from dynamo_tokenspeed.engine.inbox import Inbox

    engine = startup.build(config, context)
    heartbeat = Heartbeat(config.max_num_seqs, config.heartbeat_fd)
    ts_kernels.count_progress_in(heartbeat.progress)
    inbox = Inbox(context, config.inbox, outbox, engine.executor.constraints, heartbeat)
    if engine.kv_events is not None:
        inbox.wake_on(engine.kv_events.socket)
    if engine.executor.transfers is not None:
        inbox.wake_on(engine.executor.transfers.fd)
    try:
        outbox.send(engine.capacity)
        lifeline.hold_even_if_stuck()
        step_loop.run(engine.scheduler, engine.executor, inbox, outbox, engine.kv_events, heartbeat)
    finally:
        engine.executor.close()
        inbox.close()
        if engine.kv_events is not None:
            engine.kv_events.close()


def _is_expected(error: Exception) -> bool:
    """Errors that are one sentence for the user; anything else keeps its traceback in the log."""
    from ts_kernels import NoImplementation

    from dynamo_tokenspeed.engine.capacity import CapacityError
    from dynamo_tokenspeed.model import ModelError

    return isinstance(error, CapacityError | ModelError | NoImplementation | OSError)


if __name__ == "__main__":
    sys.exit(main())
