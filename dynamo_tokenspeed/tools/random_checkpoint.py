# SPDX-License-Identifier: MIT
"""Random checkpoints in the Hugging Face layout, any geometry, for tests and benchmarks.

    python -m dynamo_tokenspeed.tools.random_checkpoint OUT --preset bench-51m --dtype bfloat16
    python -m dynamo_tokenspeed.tools.random_checkpoint OUT --hidden-size 128 --yarn-factor 4
    python -m dynamo_tokenspeed.tools.random_checkpoint OUT --arch null

Writes config.json, generation_config.json, safetensors and a tokenizer with a chat template. The
same arguments write the same bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch
from safetensors.torch import save_file
from torch import Tensor
from ts_kernels import bind

from dynamo_tokenspeed.model.checkpoint import SERVED_DTYPES, Checkpoint
from dynamo_tokenspeed.model.checkpoint_headers import INDEX_NAME, SINGLE_NAME
from dynamo_tokenspeed.model.errors import ModelError
from dynamo_tokenspeed.model.parameters import Parameters
from dynamo_tokenspeed.tools.random_geometry import (
    PRESETS,
    VISION_TENSORS,
    Geometry,
    deepseek_v3_config,
    kimi_k25_config,
    null_config,
)
from dynamo_tokenspeed.tools.random_tokenizer import (
    EOS,
    SMALLEST_VOCABULARY,
    SPECIAL_TOKENS,
    learn_tokenizer,
    write_tokenizer,
)

ARCHITECTURES = ("deepseek_v3", "kimi_k25", "null")


def write_random_checkpoint(
    directory: str | Path,
    *,
    arch: str = "deepseek_v3",
    preset: str = "small",
    dtype: str = "float32",
    seed: int = 0,
    std: float = 0.02,
    router_bias_std: float = 0.1,
    shards: int = 1,
    tokenizer: bool = True,
    **geometry: Any,
) -> Path:
    """Write a checkpoint to `directory` and return it.

    `geometry` overrides fields of the preset's `Geometry`. `std` is that of every matrix,
    `router_bias_std` that of the correction bias, whose scores lie around 0.5.
    `shards` > 1 writes that many files and an index. `tokenizer=False` saves its second of
    learning where only token ids are used, and allows a vocabulary below 261.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    sizes = replace(PRESETS[preset], **geometry)

    eos_token_id = SPECIAL_TOKENS.index(EOS)
    null_token_id = sizes.vocab_size - 1
    if tokenizer:
        if sizes.vocab_size < SMALLEST_VOCABULARY:
            raise ModelError(
                f"vocab_size {sizes.vocab_size} is too small for a byte-level tokenizer, which "
                f"needs {SMALLEST_VOCABULARY} (--no-tokenizer writes none)"
            )
        learned = learn_tokenizer(sizes.vocab_size)
        write_tokenizer(learned, directory, sizes.max_position_embeddings)
        null_token_id = learned.encode("a").ids[0]

    if arch == "null":
        config = null_config(sizes, dtype, eos_token_id, null_token_id)
    elif arch == "kimi_k25":
        config = kimi_k25_config(sizes, dtype, eos_token_id)
    elif arch == "deepseek_v3":
        config = deepseek_v3_config(sizes, dtype, eos_token_id)
    else:
        raise ModelError(f"arch {arch!r} is not one of {', '.join(ARCHITECTURES)}")
    _write_json(directory / "config.json", config)
    _write_json(
        directory / "generation_config.json",
        {"bos_token_id": eos_token_id, "eos_token_id": eos_token_id, "do_sample": False},
    )
    noise = Noise(SERVED_DTYPES[dtype], seed, std, router_bias_std)
    _write_weights(directory, noise, shards)
    return directory


class Noise:
    """The random values of a checkpoint, one tensor after the other."""

    def __init__(self, dtype: torch.dtype, seed: int, std: float, router_bias_std: float) -> None:
        self.dtype = dtype
        self.std = std
        self.router_bias_std = router_bias_std
        self.generator = torch.Generator().manual_seed(seed)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        noise = torch.empty(shape).normal_(generator=self.generator)
        if name.endswith("e_score_correction_bias"):
            return noise * self.router_bias_std  # kept in fp32, as published checkpoints do
        if "norm." in name and name.endswith("weight"):
            return (1 + 0.1 * noise).to(self.dtype)  # so that a norm that is left out shows
        return (noise * self.std).to(self.dtype)


def _write_weights(directory: Path, noise: Noise, shards: int) -> None:
    """Fill the tensors that the model of `directory`'s config.json asks for, shard by shard."""
    checkpoint = Checkpoint(directory)
    new = Parameters("meta", noise.dtype)
    checkpoint.family(checkpoint.config, new, bind("cpu", noise.dtype))
    shapes = {name: target.shape for name, target in new.targets().items()}
    if not shapes:
        return
    if checkpoint.config.architecture.startswith("Kimi"):
        shapes |= VISION_TENSORS

    weight_map: dict[str, str] = {}
    total = 0
    for number, names in enumerate(_split(shapes, shards), start=1):
        tensors = {name: noise.tensor(name, shapes[name]) for name in names}
        many = f"model-{number:05d}-of-{shards:05d}.safetensors"
        file_name = SINGLE_NAME if shards == 1 else many
        save_file(tensors, directory / file_name, metadata={"format": "pt"})
        (directory / file_name).chmod(0o644)
        weight_map |= dict.fromkeys(names, file_name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    if shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(directory / INDEX_NAME, index)


def _split(shapes: dict[str, tuple[int, ...]], shards: int) -> Iterator[list[str]]:
    """The names in order, cut into `shards` lists of about the same number of elements."""
    if not 1 <= shards <= len(shapes):
        raise ModelError(f"--shards {shards} is not between 1 and the {len(shapes)} tensors")
    names = list(shapes)
    total = sum(math.prod(shape) for shape in shapes.values())
    start, seen = 0, 0
    for shard in range(1, shards + 1):
        end = start
        # At least one tensor here, and one left for each shard to come.
        while end < len(names) - (shards - shard):
            if end > start and seen >= total * shard / shards and shard < shards:
                break
            seen += math.prod(shapes[names[end]])
            end += 1
        yield names[start:end]
        start = end


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dynamo_tokenspeed.tools.random_checkpoint",
        description="Write a random checkpoint in the Hugging Face layout.",
    )
    parser.add_argument("out", help="directory to write")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="deepseek_v3")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--dtype", choices=sorted(SERVED_DTYPES), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--std", type=float, default=0.02, help="of every matrix (%(default)s)")
    parser.add_argument(
        "--router-bias-std", type=float, default=0.1, help="of e_score_correction_bias"
    )
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--no-tokenizer", dest="tokenizer", action="store_false")
    sizes = parser.add_argument_group("geometry (config.json's names; default: the preset's)")
    hints = get_type_hints(Geometry)
    for field in fields(Geometry):
        flag = "--" + field.name.replace("_", "-")
        hint = hints[field.name]
        if hint is bool:
            sizes.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS
            )
            continue
        optional = get_origin(hint) is types.UnionType
        kind = next(k for k in get_args(hint) if k is not type(None)) if optional else hint
        sizes.add_argument(
            flag,
            type=_or_none(kind) if optional else kind,
            default=argparse.SUPPRESS,
            metavar=f"{kind.__name__}|none" if optional else kind.__name__,
        )
    return parser


def _or_none(kind: type) -> Any:
    def parse(text: str) -> Any:
        return None if text == "none" else kind(text)

    parse.__name__ = f"{kind.__name__} or none"
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    arguments = vars(_parser().parse_args(argv))
    try:
        directory = write_random_checkpoint(arguments.pop("out"), **arguments)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    print(f"{directory}: {size / 1e6:.1f} MB of weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
