# SPDX-License-Identifier: MIT
"""What the worker process and the engine process say to each other.

This package is the whole protocol. It knows neither Dynamo nor torch, so both
sides can import it.
"""

from dynamo_tokenspeed.protocol.engine_config import EngineConfig
from dynamo_tokenspeed.protocol.heartbeat import Heartbeat
from dynamo_tokenspeed.protocol.messages import (
    Abort,
    Admitted,
    Capacity,
    Control,
    ControlReply,
    EngineMessage,
    Failed,
    FinishReason,
    FloorReport,
    Rejected,
    RequestFailed,
    Shutdown,
    Stats,
    StepOutput,
    Submit,
    TokenLogprobs,
    WorkerMessage,
    decode_engine_message,
    decode_worker_message,
    encode,
)
from dynamo_tokenspeed.protocol.sampling import SAMPLING_DTYPE, SamplingParams

__all__ = [
    "SAMPLING_DTYPE",
    "Abort",
    "Admitted",
    "Capacity",
    "Control",
    "ControlReply",
    "EngineConfig",
    "EngineMessage",
    "Failed",
    "FinishReason",
    "FloorReport",
    "Heartbeat",
    "Rejected",
    "RequestFailed",
    "SamplingParams",
    "Shutdown",
    "Stats",
    "StepOutput",
    "Submit",
    "TokenLogprobs",
    "WorkerMessage",
    "decode_engine_message",
    "decode_worker_message",
    "encode",
]
