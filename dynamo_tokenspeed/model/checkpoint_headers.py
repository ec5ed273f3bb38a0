# SPDX-License-Identifier: MIT
"""Which tensors lie in which files of a safetensors checkpoint, from the files' headers.

With an index, the index says it; without one, the headers of all files in the directory do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dynamo_tokenspeed.model.errors import WeightsError

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
# Names of safetensors' header; everything else is packed or quantized data.
LOADABLE_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
NUMBERED_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as a file's header announces it."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * LOADABLE_DTYPES[self.dtype].itemsize


def read_headers(directory: Path) -> dict[str, TensorInfo]:
    """Every tensor of the checkpoint, from the headers of its files; no data is read.

    Raises `WeightsError` for files that are missing, truncated or do not fit together.
    """
    index_path, single = directory / INDEX_NAME, directory / SINGLE_NAME
    if index_path.is_file():
        weight_map = _read_index(index_path)
        if single.is_file() and single.name not in weight_map.values():
            raise WeightsError(
                f"{directory} holds both {SINGLE_NAME} and an {INDEX_NAME} of other files, two "
                "checkpoints; remove the one that is not meant"
            )
        return _read_indexed_headers(index_path, weight_map)
    if single.is_file():
        return _file_header(single)
    if files := sorted(directory.glob("*.safetensors")):
        return _read_headers_without_index(files)
    if any(directory.glob("*.bin")):
        raise WeightsError(
            f"{directory} holds .bin files only; this version reads safetensors "
            "(convert with `transformers`: save_pretrained(..., safe_serialization=True))"
        )
    beside = sorted(path.name for path in directory.iterdir())
    raise WeightsError(
        f"{directory} holds no *.safetensors, only {', '.join(beside[:8])}; fetch the weights "
        "(--model takes a directory in the Hugging Face layout)"
    )


def stored_dtype(directory: Path, found: Mapping[str, TensorInfo]) -> torch.dtype:
    """The dtype of the first floating tensor, for a config.json that does not state one."""
    for info in found.values():
        if info.dtype in LOADABLE_DTYPES:
            return LOADABLE_DTYPES[info.dtype]
    raise WeightsError(
        f"the checkpoint in {directory} holds no {', '.join(LOADABLE_DTYPES)} tensor"
    )


def same_values(found: Mapping[str, TensorInfo], one: str, other: str) -> bool:
    """Whether two tensors of the checkpoint are equal, in dtype, shape and every value."""
    if other not in found or found[one].shape != found[other].shape:
        return False
    with open_file(found[one].file) as a, open_file(found[other].file) as b:
        first, second = a.get_tensor(one), b.get_tensor(other)
        return first.dtype == second.dtype and torch.equal(first, second)


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


def _read_headers_without_index(files: list[Path]) -> dict[str, TensorInfo]:
    """All tensors of `files`, which must be complete by their numbers and share no name."""
    directory = files[0].parent
    for file in files:
        if (shard := NUMBERED_SHARD.fullmatch(file.name)) is None:
            continue
        stem, width, count = shard[1], len(shard[2]), shard[3]
        for number in range(1, int(count) + 1):
            name = f"{stem}-{number:0{width}d}-of-{count}.safetensors"
            if not (directory / name).is_file():
                raise WeightsError(
                    f"{directory} has no {INDEX_NAME} and not all of the {int(count)} shards that "
                    f"the name of {file.name} announces: {name} is missing; fetch it"
                )
    found: dict[str, TensorInfo] = {}
    for file in files:
        for name, info in _file_header(file).items():
            if name in found:
                raise WeightsError(
                    f"{directory} has no {INDEX_NAME}, and tensor {name} stands both in "
                    f"{found[name].file.name} and in {file.name}; remove the file that is not meant"
                )
            found[name] = info
    return found


def _read_indexed_headers(index_path: Path, weight_map: dict[str, str]) -> dict[str, TensorInfo]:
    found: dict[str, TensorInfo] = {}
    for file_name in sorted(set(weight_map.values())):
        file = index_path.parent / file_name
        if not file.is_file():
            names = [name for name, in_file in weight_map.items() if in_file == file_name]
            raise WeightsError(
                f"shard {file} is missing; {index_path.name} places {len(names)} tensors in it, "
                f"{names[0]} among them; fetch it"
            )
        for name, info in _file_header(file).items():
            if weight_map.get(name) is None:
                raise WeightsError(
                    f"tensor {name} in {file} has no entry in {index_path.name}; "
                    "index and shards belong to different checkpoints; fetch both from one"
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
