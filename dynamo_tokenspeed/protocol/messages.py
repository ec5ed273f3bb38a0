# SPDX-License-Identifier: MIT
"""The messages, msgpack-encoded tagged structs over one pair of ZMQ sockets.

Worker to engine: `Submit`, `Abort`, `Control`, `Shutdown`.
Engine to worker: `Capacity` once when it can serve, then `Admitted` before a step that gives slots
away and one `StepOutput` after each step (arrays as little-endian bytes, so no Python object per
token is encoded), `Rejected`, `RequestFailed`, `ControlReply`; `Failed` and then the end when it
cannot go on.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from dynamo_tokenspeed.protocol.sampling import SamplingParams


class FinishReason(enum.IntEnum):
    """Why a stream ended; the numbers are the scheduler's (`ts_scheduler.Finish`)."""

    NONE = 0
    STOP = 1  # an eos or stop token was sampled
    LENGTH = 2  # max_tokens, or the context limit
    FAILED = 3  # its next token could not be computed: no stream's reason, a `RequestFailed`


class Submit(msgspec.Struct, tag="submit"):
    """One request, already checked by the worker."""

    request_id: int  # unique for the life of the engine process, chosen by the worker
    token_ids: bytes  # int32 little-endian, the prompt
    max_tokens: int
    min_tokens: int = 0
    eos_token_ids: list[int] = []
    stop_token_ids: list[int] = []
    ignore_eos: bool = False  # eos_token_ids are then no stop
    cache_salt: str = ""  # requests share cached pages only within one salt
    priority: int = 0  # larger first
    sampling: SamplingParams = SamplingParams()
    logit_bias: dict[int, float] = {}


class Abort(msgspec.Struct, tag="abort"):
    """End these requests now. Unknown ids are ignored: they may have just finished.

    An aborted request has no further entry in any `StepOutput`.
    """

    request_ids: list[int]


class Control(msgspec.Struct, tag="control"):
    """An operation on the engine as a whole: `clear_prefix_cache`, or `ping` (none at all)."""

    call_id: int
    name: str


class Shutdown(msgspec.Struct, tag="shutdown"):
    """End the engine process; running requests are dropped."""


WorkerMessage = Submit | Abort | Control | Shutdown


class Capacity(msgspec.Struct, tag="capacity"):
    """The engine is ready; what it can hold."""

    num_pages: int
    page_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    vocab_size: int
    kv_events_endpoint: str = ""  # where the KV event PUB socket is bound; "" when events are off
    kv_bytes: int = 0
    weight_bytes: int = 0


class FloorReport(msgspec.Struct, array_like=True, frozen=True):
    """How fast users were served, and what it cost others (`ts_scheduler.FloorReport`)."""

    users: int = 0  # finished requests that were measured
    attained_p1: float = 0.0  # tokens/s that all but the slowest 1 % of them had
    attained_p50: float = 0.0
    held_prefill_tokens: int = 0  # that an earlier step would have computed
    held_admissions: int = 0  # steps that admitted nobody for its sake


class Stats(msgspec.Struct, array_like=True):
    """Scheduler state after a step (`ts_scheduler.Stats`, same words)."""

    waiting: int = 0
    running: int = 0
    loading: int = 0  # wait for their pages from the host tier
    pages_used: int = 0  # referenced by a running request
    pages_cached: int = 0  # in the prefix cache and referenced by no request
    pages_free: int = 0
    host_pages_cached: int = 0  # of the host tier
    prefix_query_tokens: int = 0  # prompt tokens looked up, since start
    prefix_hit_tokens: int = 0  # of those, found cached
    retractions: int = 0
    steps: int = 0
    floor: FloorReport = FloorReport()


class Admitted(msgspec.Struct, tag="admitted"):
    """These requests wait no longer: each has a slot in the step that is launched next.

    One that was retracted is admitted again.
    """

    request_ids: bytes  # uint64 little-endian


class TokenLogprobs(msgspec.Struct, array_like=True):
    """Log-probabilities of one sampled token."""

    index: int  # position in the step's arrays
    logprob: float
    top_ids: list[int]
    top_logprobs: list[float]


class StepOutput(msgspec.Struct, tag="step"):
    """What one step produced, entry i of every array belonging together."""

    request_ids: bytes  # uint64 little-endian
    token_ids: bytes  # int32 little-endian
    finish_reasons: bytes  # uint8, FinishReason
    cached_tokens: bytes  # int32 little-endian: prompt tokens taken from the prefix cache
    stats: Stats
    logprobs: list[TokenLogprobs] = []  # only rows that asked


class Rejected(msgspec.Struct, tag="rejected"):
    """A `Submit` that the scheduler refused; the request never ran."""

    request_id: int
    sentence: str


class RequestFailed(msgspec.Struct, tag="request_failed"):
    """A request that could not be computed any further, through no fault of the engine process.

    The tokens before are in the steps before. No other request is touched, and another engine
    process would fail in the same way.
    """

    request_id: int
    sentence: str


class ControlReply(msgspec.Struct, tag="control_reply"):
    call_id: int
    error: str = ""
    result: dict[str, Any] = {}


class Failed(msgspec.Struct, tag="failed"):
    """The engine process cannot start or go on: one sentence for the user."""

    sentence: str


EngineMessage = Capacity | Admitted | StepOutput | Rejected | RequestFailed | ControlReply | Failed

_encoder = msgspec.msgpack.Encoder()
_worker_decoder: msgspec.msgpack.Decoder[WorkerMessage] = msgspec.msgpack.Decoder(WorkerMessage)
_engine_decoder: msgspec.msgpack.Decoder[EngineMessage] = msgspec.msgpack.Decoder(EngineMessage)


def encode(message: WorkerMessage | EngineMessage) -> bytes:
    return _encoder.encode(message)


def decode_worker_message(frame: bytes) -> WorkerMessage:
    return _worker_decoder.decode(frame)


def decode_engine_message(frame: bytes) -> EngineMessage:
    return _engine_decoder.decode(frame)
