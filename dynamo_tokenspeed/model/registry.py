# SPDX-License-Identifier: MIT
"""From a model directory to a model: which class serves which architecture, and loading it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ts_kernels import Ops

from dynamo_tokenspeed.model.causal_lm import CausalLM, ModelConfig
from dynamo_tokenspeed.model.checkpoint_headers import checkpoint_dtype, read_headers
from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.deepseek_v3 import DeepseekV3ForCausalLM
from dynamo_tokenspeed.model.errors import ModelError
from dynamo_tokenspeed.model.kimi_k25 import KimiK25ForConditionalGeneration
from dynamo_tokenspeed.model.null import NullForCausalLM
from dynamo_tokenspeed.model.weights import Progress, check_tensors, load_weights

log = logging.getLogger(__name__)

# The first name in config.json's `architectures` → the class that computes it.
FAMILIES: dict[str, type[CausalLM]] = {
    "DeepseekV3ForCausalLM": DeepseekV3ForCausalLM,
    "KimiK25ForConditionalGeneration": KimiK25ForConditionalGeneration,
    "Kimi_K25ForConditionalGeneration": KimiK25ForConditionalGeneration,  # as transformers saves it
    "NullForCausalLM": NullForCausalLM,
}
SERVED_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model_config(directory: str | Path) -> ModelConfig:
    """The config of the model in `directory`, `dtype` filled in from the weights when config.json
    does not state it. `ModelError` for a directory that cannot be served."""
    config: ModelConfig = _read_config(ConfigFile.read(directory))
    return config


def resolve_dtype(config: ModelConfig, requested: str | torch.dtype = "auto") -> torch.dtype:
    """The dtype to compute in: `requested` ("auto": the checkpoint's), if this version has it."""
    dtype = config.dtype if requested == "auto" else SERVED_DTYPES.get(str(requested), requested)
    if dtype not in SERVED_DTYPES.values():
        name = str(dtype).removeprefix("torch.")
        origin = "the checkpoint's dtype is" if requested == "auto" else "the requested dtype is"
        raise ModelError(
            f"{origin} {name}, but this version computes in {' or '.join(SERVED_DTYPES)} (--dtype)"
        )
    assert isinstance(dtype, torch.dtype)
    return dtype


def load_model(
    directory: str | Path,
    device: torch.device | str,
    dtype: str | torch.dtype,
    ops: Ops,
    on_progress: Progress | None = None,
) -> CausalLM:
    """The model in `directory`, its weights streamed onto `device` in `dtype` ("auto": theirs).

    `ops` is what `ts_kernels.bind` returned for the same device and dtype.
    `on_progress(done_bytes, total_bytes, tensor_name)` is called after each tensor.
    """
    file = ConfigFile.read(directory)
    directory, family, config = file.directory, _family(file), _read_config(file)
    if file.defaulted:
        defaults = ", ".join(f"{key} {json.dumps(value)}" for key, value in file.defaulted.items())
        log.info("%s does not state these keys, whose defaults count: %s", file.path, defaults)
    dtype = resolve_dtype(config, dtype)
    found = read_headers(directory) if family.has_weights else {}
    config = family.reconcile(config, found)
    try:
        model = family(config, device, dtype, ops)
    except (RuntimeError, MemoryError) as error:  # torch's out-of-memory errors are RuntimeErrors
        raise ModelError(
            f"the model that {directory}/config.json describes does not fit on {device}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    targets = model.weight_targets(found)
    check_tensors(directory, targets, found)
    load_weights(found, targets, on_progress)
    return model


def _read_config(file: ConfigFile) -> Any:
    config: Any = _family(file).read_config(file)
    if config.dtype is None:
        dtype = checkpoint_dtype(file.directory)
        file.defaulted["dtype"] = str(dtype).removeprefix("torch.")
        config = replace(config, dtype=dtype)
    return config


def _family(file: ConfigFile) -> type[CausalLM]:
    name = file.architecture()
    if name not in FAMILIES:
        raise ModelError(
            f"{file.path} asks for architecture {name}, but this version serves "
            f"{', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[name]
