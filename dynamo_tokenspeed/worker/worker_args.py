# SPDX-License-Identifier: MIT
"""What the command line says, resolved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec
from dynamo.common.configuration.groups.runtime_args import DynamoRuntimeConfig

from dynamo_tokenspeed.protocol import EngineConfig
from dynamo_tokenspeed.worker.generation_config import NEUTRAL, GenerationDefaults
from dynamo_tokenspeed.worker.kv_events import KVEventsConfig
from dynamo_tokenspeed.worker.token_table import EMPTY, TokenTable


@dataclasses.dataclass(frozen=True)
class WorkerArgs:
    """A field's default is what holds for its flag when it is not given (`flags`)."""

    dynamo: DynamoRuntimeConfig  # namespace, component, endpoint, planes, parsers
    model: str  # as given; a directory once `resolve_model` has run
    served_model_names: tuple[str, ...]
    engine: EngineConfig
    kv_events: KVEventsConfig
    drain_seconds: float = 20.0
    step_timeout: float = 300.0  # seconds; 0: none
    request_timeout: float = 0.0  # seconds; 0: none
    max_queued_requests: int | None = None
    seed: int | None = None
    generation_config: str = "auto"  # auto | vllm | a directory
    override_generation_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # Read from the model's directory by `resolve_model`.
    defaults: GenerationDefaults = NEUTRAL
    table: TokenTable = EMPTY

    def for_dump(self) -> dict[str, Any]:
        """JSON-encodable, for `--dump-config-to`."""
        ours = {
            field.name: msgspec.to_builtins(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in ("dynamo", "table")
        }
        return {"dynamo": dict(vars(self.dynamo)), **ours}
