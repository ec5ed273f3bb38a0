# SPDX-License-Identifier: MIT
"""Streaming a safetensors checkpoint onto preallocated parameters.

A model says which tensors it wants and where each goes (`WeightTargets`); everything is checked
against the files' headers before the first byte is copied, so a wrong checkpoint fails at once.
Then the files are mapped one after the other and copied tensor by tensor.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from dynamo_tokenspeed.model.checkpoint_headers import (
    INDEX_NAME,
    LOADABLE_DTYPES,
    SINGLE_NAME,
    TensorInfo,
    open_file,
)
from dynamo_tokenspeed.model.errors import WeightsError
from dynamo_tokenspeed.model.weight import Target

log = logging.getLogger(__name__)

WAY_OUT = "correct config.json, or take the weights that belong to it"

Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, name of the last tensor


@dataclass
class WeightTargets:
    """The tensors of a checkpoint as a model sees them: wanted, or knowingly left out."""

    wanted: Mapping[str, Target]
    # name -> why it is left out ("vision tower"), or None when it is not known
    left_out: Callable[[str], str | None] = lambda name: None
    # name -> what decides its place and shape ("config.json has vocab_size 512")
    because: Callable[[str], str] = lambda name: "config.json describes another model"


def load_weights(
    found: dict[str, TensorInfo], targets: WeightTargets, on_progress: Progress | None
) -> None:
    """Fill every wanted target from the checked tensors `found`, in the order of the files."""
    by_file: dict[Path, list[str]] = {}
    for name in filter(targets.wanted.__contains__, found):
        by_file.setdefault(found[name].file, []).append(name)
    total = sum(found[name].nbytes for name in targets.wanted)
    done = 0
    for file in sorted(by_file):
        with open_file(file) as tensors:
            for name in by_file[file]:
                targets.wanted[name].write(tensors.get_tensor(name))
                done += found[name].nbytes
                if on_progress is not None:
                    on_progress(done, total, name)


def check_tensors(directory: Path, targets: WeightTargets, found: dict[str, TensorInfo]) -> None:
    """Raise for the first tensor that is missing, misshapen, undecodable or unexpected."""
    others = {name: targets.left_out(name) for name in found if name not in targets.wanted}
    unknown = [name for name, reason in others.items() if reason is None]
    for name, target in targets.wanted.items():
        info = found.get(name)
        if info is None:
            instead = (
                f"; it holds {len(unknown)} others that have no place, {unknown[0]} among them"
                if unknown
                else ""
            )
            raise WeightsError(
                f"tensor {name} {list(target.shape)} is missing from the checkpoint in "
                f"{directory}: {targets.because(name)}{instead}; {WAY_OUT}"
            )
        if info.dtype not in LOADABLE_DTYPES:
            raise WeightsError(
                f"tensor {name} in {info.file} has dtype {info.dtype}, but this version loads only "
                f"{', '.join(LOADABLE_DTYPES)}; serve an unquantized checkpoint"
            )
        if info.shape != target.shape:
            raise WeightsError(
                f"tensor {name} in {info.file} has shape {list(info.shape)} where "
                f"{list(target.shape)} is expected: {targets.because(name)}; {WAY_OUT}"
            )
    for name in unknown:
        raise WeightsError(
            f"tensor {name} {list(found[name].shape)} in {found[name].file} has no place in the "
            f"model: {targets.because(name)}; {WAY_OUT}"
        )
    for reason, count in Counter(others.values()).items():
        log.info("%d tensors of %s are not loaded: %s", count, directory, reason)
    _tell_how_it_is_read(directory, targets, found)


def _tell_how_it_is_read(
    directory: Path, targets: WeightTargets, found: dict[str, TensorInfo]
) -> None:
    if found and not any((directory / name).is_file() for name in (INDEX_NAME, SINGLE_NAME)):
        number = len({info.file for info in found.values()})
        log.info("%s has no %s: all of its %d files are read", directory, INDEX_NAME, number)
    rounded = {
        (found[name].dtype, str(target.dtype).removeprefix("torch."))
        for name, target in targets.wanted.items()
        if target.dtype is not None
        and torch.finfo(target.dtype).eps > torch.finfo(LOADABLE_DTYPES[found[name].dtype]).eps
    }
    for stored, served in sorted(rounded):
        log.info("weights that %s stores in %s are rounded to %s", directory, stored, served)
