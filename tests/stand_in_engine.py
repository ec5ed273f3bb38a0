# SPDX-License-Identifier: MIT
"""An engine process without an engine: speaks the protocol, computes nothing.

Token i of every stream is `(prompt tokens + i + offset) % vocabulary`. `STAND_IN` holds a
JSON object that changes its manners:

`step_seconds`  pause after every step (0: as fast as it goes)
`fail`          send `Failed` with this sentence instead of `Capacity`
`start_seconds` pause before `Capacity`
`crash`         exit with this code before `Capacity`
`hang_after`    do nothing more after so many steps
`die_after`     kill itself with SIGKILL after so many steps
`max_model_len`, `vocab_size`, `num_pages`, `offset` (0)
`stop_after`    end every stream with `stop` after so many tokens
`log`           append one line per message received to this file
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from array import array
from pathlib import Path

import msgspec
import zmq

from dynamo_tokenspeed.protocol import (
    Abort,
    Admitted,
    Capacity,
    Control,
    ControlReply,
    EngineConfig,
    Failed,
    FinishReason,
    Heartbeat,
    Rejected,
    Shutdown,
    Stats,
    StepOutput,
    Submit,
    decode_worker_message,
    encode,
)
from dynamo_tokenspeed.protocol.messages import TokenLogprobs


def end_with_the_worker() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


def main() -> None:
    manners = json.loads(os.environ.get("STAND_IN", "{}"))
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineConfig)
    threading.Thread(target=end_with_the_worker, daemon=True).start()
    if "crash" in manners:
        os._exit(manners["crash"])
    time.sleep(manners.get("start_seconds", 0))
    context = zmq.Context()
    inbox, outbox = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    outbox.setsockopt(zmq.LINGER, 1000)
    inbox.connect(config.inbox)
    outbox.connect(config.outbox)
    if "fail" in manners:
        outbox.send(encode(Failed(manners["fail"])))
        outbox.close()
        context.term()
        sys.exit(1)
    events = context.socket(zmq.PUB)
    endpoint = ""
    if config.kv_events_endpoint:
        events.bind(config.kv_events_endpoint)
        endpoint = events.getsockopt_string(zmq.LAST_ENDPOINT)
    num_pages = config.num_pages or manners.get("num_pages", 1024)
    vocab_size = manners.get("vocab_size", 2048)
    outbox.send(
        encode(
            Capacity(
                num_pages=num_pages,
                page_size=config.page_size,
                max_model_len=config.max_model_len or manners.get("max_model_len", 4096),
                max_num_seqs=config.max_num_seqs,
                max_num_batched_tokens=config.max_num_batched_tokens,
                vocab_size=vocab_size,
                kv_events_endpoint=endpoint,
            )
        )
    )
    heartbeat = Heartbeat(config.max_num_seqs, config.heartbeat_fd)
    offset = manners.get("offset", 0)
    running: dict[int, list[int]] = {}  # request id: [prompt tokens, generated, max_tokens, k]
    steps = 0
    while True:
        if not running:
            heartbeat.waits()
        while inbox.poll(0 if running else None):
            heartbeat.works()
            message = decode_worker_message(inbox.recv())
            heartbeat.received()
            if log := manners.get("log"):
                with Path(log).open("a") as file:
                    file.write(f"{message}\n")
            if isinstance(message, Submit):
                if message.priority == -666:
                    outbox.send(encode(Rejected(message.request_id, "no, says the scheduler")))
                    continue
                outbox.send(encode(Admitted(array("Q", [message.request_id]).tobytes())))
                prompt = len(message.token_ids) // 4
                running[message.request_id] = [
                    prompt,
                    0,
                    message.max_tokens,
                    message.sampling.logprobs,
                ]
            elif isinstance(message, Abort):
                for request_id in message.request_ids:
                    running.pop(request_id, None)
            elif isinstance(message, Control):
                outbox.send(encode(ControlReply(message.call_id, result={"done": message.name})))
            elif isinstance(message, Shutdown):
                os._exit(0)
        if not running:
            continue
        steps += 1
        heartbeat.works()
        if steps == manners.get("die_after"):
            os.kill(os.getpid(), signal.SIGKILL)
        if steps == manners.get("hang_after"):
            time.sleep(3600)
        request_ids, tokens = array("Q", running), array("i")
        finish, logprobs = bytearray(), []
        for i, state in enumerate(running.values()):
            prompt, done, max_tokens, k = state
            tokens.append((prompt + done + offset) % vocab_size)
            state[1] += 1
            stopped = state[1] == manners.get("stop_after")
            finish.append(
                FinishReason.STOP
                if stopped
                else FinishReason.LENGTH
                if state[1] >= max_tokens
                else FinishReason.NONE
            )
            if k >= 0:
                logprobs.append(
                    TokenLogprobs(
                        i,
                        -0.5,
                        [tokens[-1] + rank for rank in range(k)],
                        [-0.5 - rank for rank in range(k)],
                    )
                )
        cached = array("i", [state[0] // 16 * 16 for state in running.values()])
        running = {r: s for (r, s), f in zip(running.items(), finish, strict=True) if not f}
        outbox.send(
            encode(
                StepOutput(
                    request_ids=request_ids.tobytes(),
                    token_ids=tokens.tobytes(),
                    finish_reasons=bytes(finish),
                    cached_tokens=cached.tobytes(),
                    stats=Stats(
                        running=len(running),
                        pages_free=num_pages,
                        steps=steps,
                        prefix_query_tokens=100,
                        prefix_hit_tokens=40,
                    ),
                    logprobs=logprobs,
                )
            )
        )
        time.sleep(manners.get("step_seconds", 0))


if __name__ == "__main__":
    main()
