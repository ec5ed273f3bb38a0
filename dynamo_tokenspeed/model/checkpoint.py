# SPDX-License-Identifier: MIT
"""From a model directory to a model."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ts_kernels import Ops

from dynamo_tokenspeed.model.causal_lm import CausalLM, ModelConfig
from dynamo_tokenspeed.model.checkpoint_headers import TensorInfo, read_headers, stored_dtype
from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.errors import ModelError
from dynamo_tokenspeed.model.families import FAMILIES
from dynamo_tokenspeed.model.parameters import Parameters
from dynamo_tokenspeed.model.weight_targets import Progress, check_tensors, load_weights

log = logging.getLogger(__name__)

SERVED_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Checkpoint:
    """A model directory, each file of which is read once.

    config: its family's, `dtype` filled in from the weights when config.json does not state it.
    `ModelError` for a directory that cannot be served.
    """

    config: ModelConfig

    def __init__(self, directory: str | Path) -> None:
        file = ConfigFile.read(directory)
        name = file.architecture()
        if name not in FAMILIES:
            raise ModelError(
                f"{file.path} asks for architecture {name}, but this version serves "
                f"{', '.join(sorted(FAMILIES))}"
            )
        self.directory = file.directory
        self.family = FAMILIES[name]
        config: Any = self.family.read_config(file)
        if config.dtype is None:
            config = replace(config, dtype=stored_dtype(self.directory, self.headers))
            file.note_default("dtype", str(config.dtype).removeprefix("torch."))
        self.config = config
        if file.defaulted:
            taken = ", ".join(f"{key} {json.dumps(value)}" for key, value in file.defaulted.items())
            log.info("%s does not state these keys, whose defaults count: %s", file.path, taken)

    @cached_property
    def headers(self) -> dict[str, TensorInfo]:
        """Its tensors by name."""
        return read_headers(self.directory) if self.family.has_weights else {}


def resolve_dtype(config: ModelConfig, requested: str = "auto") -> torch.dtype:
    """The dtype to compute in: `requested` ("auto": the checkpoint's), if this version has it."""
    name = str(config.dtype).removeprefix("torch.") if requested == "auto" else requested
    if name not in SERVED_DTYPES:
        origin = "the checkpoint's dtype is" if requested == "auto" else "the requested dtype is"
        raise ModelError(
            f"{origin} {name}, but this version computes in {' or '.join(SERVED_DTYPES)} (--dtype)"
        )
    return SERVED_DTYPES[name]


def load_model(
    checkpoint: Checkpoint,
    device: torch.device | str,
    dtype: torch.dtype,
    ops: Ops,
    on_progress: Progress | None = None,
) -> CausalLM:
    """The model of `checkpoint`, its weights streamed onto `device` in `dtype`.

    `ops` is what `ts_kernels.bind` returned for the same device and dtype.
    `on_progress(done_bytes, total_bytes, tensor_name)` is called after each tensor.
    """
    family, found = checkpoint.family, checkpoint.headers
    config = family.reconcile(checkpoint.config, found)
    new = Parameters(device, dtype, found)
    try:
        model = family(config, new, ops)
    except (RuntimeError, MemoryError) as error:  # torch's out-of-memory errors are RuntimeErrors
        raise ModelError(
            f"the model that {checkpoint.directory}/config.json describes does not fit on "
            f"{device}: {str(error).splitlines()[0]}"
        ) from error
    targets = family.weight_targets(config, new)
    check_tensors(checkpoint.directory, targets, found)
    load_weights(found, targets, on_progress)
    return model
