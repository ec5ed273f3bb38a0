# SPDX-License-Identifier: MIT
"""What the worker tells the engine process when it starts it.

The worker binds both sockets before it starts the engine process (PUSH for
`inbox`, PULL for `outbox`), writes this struct as one line of JSON to the
process's stdin and keeps stdin open as the life line. The engine connects, and
sends `Capacity` or `Failed` first.
"""

from __future__ import annotations

import msgspec


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one engine process needs, already checked by the worker's flags.

    `None` means "decide from the model and the machine"; the decision comes back
    in `Capacity`.
    """

    model: str  # a directory in the Hugging Face layout
    device: str = "cpu"
    dtype: str = "auto"  # auto | bfloat16 | float32
    num_token_ids: int | None = None  # larger ids are never sampled; None: the vocabulary's size
    unknown_token_ids: list[int] = []  # smaller ids that are never sampled either
    page_size: int = 16
    num_pages: int | None = None
    kv_cache_bytes: int | None = None  # used when num_pages is None
    kv_offloading_bytes: int = 0  # host tier; 0: none
    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    chunked_prefill_size: int = 512
    absorb_from: int = 2048  # prompt tokens from this position on attend in the absorbed form
    min_tps_per_user: float = 0.0  # tokens/s that decoding users keep; 0: no floor
    overlap_schedule: bool | None = None  # plan a step while the one before it runs
    enable_prefix_caching: bool = True
    kv_events_endpoint: str = ""  # "" off; "tcp://127.0.0.1:*" binds a free port
    kv_events_topic: str = ""
    dp_rank: int = 0
    attention_backend: str | None = None
    moe_backend: str | None = None
    num_threads: int | None = None
    inbox: str = ""  # ipc:// endpoint where the engine pulls WorkerMessage
    outbox: str = ""  # ipc:// endpoint where the engine pushes EngineMessage
    heartbeat_fd: int | None = None  # inherited memory (`Heartbeat`); None: nobody watches
    log_level: str = "info"
