# SPDX-License-Identifier: MIT
"""Streaming a safetensors checkpoint onto preallocated parameters.

A model says which tensors it wants and where each goes (`WeightTargets`); everything is checked
against the files' headers before the first byte is copied, so a wrong checkpoint fails at once.
Then the files are mapped one after the other and copied tensor by tensor.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dynamo_tokenspeed.model.errors import WeightsError

log = logging.getLogger(__name__)

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
# Names of safetensors' header; everything else is packed or quantized data.
LOADABLE_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}

Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, name of the last tensor


@dataclass(frozen=True)
class Target:
    """One tensor that the model wants, and what to do with it."""

    shape: tuple[int, ...]
    write: Callable[[Tensor], object]


@dataclass
class WeightTargets:
    """The tensors of a checkpoint as a model sees them: wanted, or knowingly left out."""

    wanted: dict[str, Target] = field(default_factory=dict)
    # name -> why it is left out ("vision tower"), or None when it is not known
    left_out: Callable[[str], str | None] = lambda name: None

    def add(self, name: str, destination: Tensor, shape: tuple[int, ...] | None = None) -> None:
        """`destination` (any view of a parameter) receives the tensor `name`.

        `shape` is the tensor's shape in the file where it differs from the destination's.
        """
        self.wanted[name] = Target(
            tuple(shape or destination.shape),
            lambda source: destination.copy_(source.view(destination.shape)),
        )

    def add_written_by(
        self, name: str, shape: tuple[int, ...], write: Callable[[Tensor], object]
    ) -> None:
        """`write` receives the tensor `name`, where a single copy does not do."""
        self.wanted[name] = Target(shape, write)


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as a file's header announces it."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * LOADABLE_DTYPES[self.dtype].itemsize


def check_checkpoint(directory: Path, targets: WeightTargets) -> dict[str, TensorInfo]:
    """The checkpoint's tensors by name, having checked that they are those of `targets`.

    Raises `WeightsError`, naming tensor and file, for a file or tensor that is missing,
    truncated, of another shape, of a dtype that is not loaded, or not known to the model.
    """
    found = read_headers(directory)
    check_tensors(directory, targets, found)
    return found


def load_weights(
    found: dict[str, TensorInfo], targets: WeightTargets, on_progress: Progress | None
) -> None:
    """Fill every wanted target from the checked tensors `found`, file by file."""
    by_file: dict[Path, list[str]] = {}
    for name in targets.wanted:
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


def checkpoint_dtype(directory: Path) -> torch.dtype:
    """The dtype of the first floating tensor, for a config.json that does not state one."""
    for info in read_headers(directory).values():
        if info.dtype in LOADABLE_DTYPES:
            return LOADABLE_DTYPES[info.dtype]
    raise WeightsError(
        f"the checkpoint in {directory} holds no {', '.join(LOADABLE_DTYPES)} tensor"
    )


def read_headers(directory: Path) -> dict[str, TensorInfo]:
    """Every tensor of the checkpoint, from the headers of its files; no data is read."""
    index_path = directory / INDEX_NAME
    if index_path.is_file():
        return _read_sharded_headers(index_path)
    single = directory / SINGLE_NAME
    if single.is_file():
        return _file_header(single)
    if any(directory.glob("*.bin")):
        raise WeightsError(
            f"{directory} holds .bin files only; this version reads safetensors "
            "(convert with `transformers`: save_pretrained(..., safe_serialization=True))"
        )
    raise WeightsError(f"{directory} holds neither {INDEX_NAME} nor {SINGLE_NAME}")


def check_tensors(directory: Path, targets: WeightTargets, found: dict[str, TensorInfo]) -> None:
    """Raise for the first tensor that is missing, misshapen, undecodable or unexpected."""
    for name, target in targets.wanted.items():
        info = found.get(name)
        if info is None:
            raise WeightsError(
                f"tensor {name} {list(target.shape)} is missing from the checkpoint in "
                f"{directory}; fetch the checkpoint again or correct config.json"
            )
        if info.dtype not in LOADABLE_DTYPES:
            raise WeightsError(
                f"tensor {name} in {info.file} has dtype {info.dtype}, but this version loads only "
                f"{', '.join(LOADABLE_DTYPES)}; serve an unquantized checkpoint"
            )
        if info.shape != target.shape:
            raise WeightsError(
                f"tensor {name} in {info.file} has shape {list(info.shape)}, but config.json "
                f"implies {list(target.shape)}; one of the two belongs to another model"
            )
    left_out: Counter[str] = Counter()
    for name, info in found.items():
        if name in targets.wanted:
            continue
        reason = targets.left_out(name)
        if reason is None:
            raise WeightsError(
                f"tensor {name} {list(info.shape)} in {info.file} has no place in the model that "
                "config.json describes; one of the two belongs to another model"
            )
        left_out[reason] += 1
    for reason, count in left_out.items():
        log.info("%d tensors of %s are not loaded: %s", count, directory, reason)


@contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """`safe_open` with one-sentence errors; the mapping ends with the block."""
    try:
        with safe_open(path, framework="pt", device="cpu") as tensors:
            yield tensors
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is truncated or not a safetensors file ({error}); fetch it again"
        ) from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None


def _read_sharded_headers(index_path: Path) -> dict[str, TensorInfo]:
    weight_map = _read_index(index_path)
    found: dict[str, TensorInfo] = {}
    for file_name in sorted(set(weight_map.values())):
        file = index_path.parent / file_name
        if not file.is_file():
            names = [name for name, in_file in weight_map.items() if in_file == file_name]
            raise WeightsError(
                f"shard {file} is missing; {index_path.name} places {len(names)} tensors in it, "
                f"{names[0]} among them"
            )
        for name, info in _file_header(file).items():
            if weight_map.get(name) is None:
                raise WeightsError(
                    f"tensor {name} in {file} has no entry in {index_path.name}; "
                    "index and shards belong to different checkpoints"
                )
            # A name in two shards: the index decides.
            if weight_map[name] == file_name:
                found[name] = info
    for name, file_name in weight_map.items():
        if name not in found:
            raise WeightsError(
                f"{index_path.name} places tensor {name} in {index_path.parent / file_name}, "
                "but that file does not hold it; fetch the shard again"
            )
    return found


def _read_index(index_path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index_path.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise WeightsError(f"{index_path} is not a checkpoint index: {error!r}") from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{index_path} has an empty weight_map")
    for name, file_name in weight_map.items():
        # A plain name: an index must not reach outside its directory.
        if not isinstance(file_name, str) or Path(file_name).name != file_name:
            raise WeightsError(
                f"{index_path} places tensor {name} in {file_name!r}, which is no file name"
            )
    return weight_map


def _file_header(file: Path) -> dict[str, TensorInfo]:
    with open_file(file) as tensors:
        headers = ((name, tensors.get_slice(name)) for name in tensors.keys())  # noqa: SIM118
        return {
            name: TensorInfo(file, header.get_dtype(), tuple(header.get_shape()))
            for name, header in headers
        }
