# SPDX-License-Identifier: MIT
"""Run by the interpreter of one Dynamo environment; prints what is true there, as JSON."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import inspect
import json
import sys
from typing import Any

from dynamo.common.backend.engine import EngineConfig, LLMEngine, LlmRegistration

from dynamo_tokenspeed.worker.args import build_parser
from dynamo_tokenspeed.worker.dynamo_versions import construct
from dynamo_tokenspeed.worker.llm_engine import TokenSpeedEngine


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def main(model: str) -> None:
    engine, config = asyncio.run(
        TokenSpeedEngine.from_args(
            ["--model", model, "--served-model-name", "name", "--dyn-tool-call-parser", "hermes"]
        )
    )
    ours = [name for name in vars(TokenSpeedEngine) if hasattr(LLMEngine, name)]
    public = {name for name in ours if not name.startswith("_")}
    facts = {
        "version": importlib.metadata.version("ai-dynamo"),
        "missing": sorted(TokenSpeedEngine.__abstractmethods__),
        "differing": [
            name
            for name in public
            if parameters(getattr(TokenSpeedEngine, name)) != parameters(getattr(LLMEngine, name))
        ],
        "overridden": sorted(public),
        "worker_config": {
            name: value
            for name, value in vars(config).items()
            if isinstance(value, str | bool | None.__class__)
        },
        "dynamos_flags": [
            action.dest
            for group in build_parser()._action_groups
            if group.title == "Dynamo Runtime Options"
            for action in group._group_actions
        ],
        "is_engine": isinstance(engine, LLMEngine),
        "registration": dataclasses.asdict(
            construct(
                EngineConfig,
                model="m",
                model_aliases=["a"],
                llm=construct(LlmRegistration, context_length=5, enable_eagle=False),
            )
        ),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1])
