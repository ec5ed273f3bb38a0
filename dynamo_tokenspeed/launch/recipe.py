# SPDX-License-Identifier: MIT
"""Recipes: how a model is launched, as one YAML file.

`recipes/README.md` describes the format for those who write one. A recipe is
strict: a key this module does not know is an error, never ignored.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec.structs import replace

from dynamo_tokenspeed.launch.errors import RecipeError

FlagValue = bool | int | float | str | list[Any] | dict[str, Any]
Flags = dict[str, FlagValue]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
Count = Annotated[int, msgspec.Meta(ge=1)]


class _Part(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Keys are spelled with hyphens, as on the command line."""


class Hardware(_Part):
    """What one worker needs. The launcher tells the reader, Kubernetes reserves it."""

    gpus: Annotated[int, msgspec.Meta(ge=0)] = 0
    gpu_type: str = ""
    cpus: Count = 1
    memory: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(Mi|Gi)$")] = "2Gi"


class Model(_Part):
    path: str  # a directory, or a name on the Hugging Face hub
    name: str  # what a client writes into "model"


class RecipeFrontend(_Part):
    router_mode: str = "kv"
    flags: Flags = {}
    env: dict[str, str] = {}


class RecipeWorker(_Part):
    """One kind of worker; `replicas` processes of it are started."""

    name: Name
    replicas: Count = 1
    flags: Flags = {}
    env: dict[str, str] = {}


class Recipe(_Part):
    name: Name
    description: str
    hardware: Hardware
    model: Model
    workers: Annotated[list[RecipeWorker], msgspec.Meta(min_length=1)]
    frontend: RecipeFrontend = msgspec.field(default_factory=RecipeFrontend)
    start_timeout: Annotated[float, msgspec.Meta(gt=0)] = 60.0  # seconds until every worker serves

    def worker_argv(self, worker: RecipeWorker) -> list[str]:
        """The command line of one worker behind `python -m dynamo.tokenspeed`."""
        model: Flags = {"model": self.model.path, "served-model-name": self.model.name}
        return to_argv(model | worker.flags)

    def frontend_argv(self) -> list[str]:
        """The command line of the frontend behind `python -m dynamo.frontend`."""
        return to_argv({"router-mode": self.frontend.router_mode} | self.frontend.flags)

    def in_folder(self, folder: Path) -> Recipe:
        """This recipe with its relative paths (`.`, `./…`, `../…`) as paths below `folder`."""

        def resolved(flags: Flags) -> Flags:
            return {
                name: os.path.normpath(folder / str(value)) if _is_relative_path(value) else value
                for name, value in flags.items()
            }

        model, frontend = self.model, self.frontend
        path = str(resolved({"path": model.path})["path"])
        return replace(
            self,
            model=replace(model, path=path),
            frontend=replace(frontend, flags=resolved(frontend.flags)),
            workers=[replace(worker, flags=resolved(worker.flags)) for worker in self.workers],
        )

    def with_replicas(self, replicas: int) -> Recipe:
        """This recipe with another number of workers."""
        if len(self.workers) > 1:
            raise RecipeError(
                f"the recipe {self.name} has {len(self.workers)} kinds of workers, so it alone "
                "can say how many there are of each; leave --workers out"
            )
        workers = [replace(self.workers[0], replicas=replicas)]
        return replace(self, workers=workers)

    def with_model(self, directory: Path) -> Recipe:
        """This recipe with another checkpoint, served under its directory's name."""
        directory = directory.resolve()
        model = Model(path=str(directory), name=directory.name)
        return replace(self, model=model)


def to_argv(flags: Flags) -> list[str]:
    """`{"max-num-seqs": 8, "trust-remote-code": True}` → `--max-num-seqs 8 --trust-remote-code`.

    False becomes `--no-…`, a list one flag with several values, a mapping one JSON value.
    """
    argv: list[str] = []
    for name, value in flags.items():
        if isinstance(value, bool):
            argv.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list):
            argv += [f"--{name}", *map(str, value)]
        elif isinstance(value, dict):
            argv += [f"--{name}", json.dumps(value)]
        else:
            argv += [f"--{name}", str(value)]
    return argv


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe; the paths in it come back absolute."""
    return read_recipe(path).in_folder(Path(path).resolve().parent)


def read_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe, with its paths as they are written."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from None
    try:
        recipe = msgspec.convert(yaml.load(text, Loader=_Loader), Recipe)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise RecipeError(f"{path}: {_one_sentence(error)}") from None
    _check(recipe, path)
    return recipe


def _is_relative_path(value: object) -> bool:
    return isinstance(value, str) and (value in (".", "..") or value.startswith(("./", "../")))


def _check(recipe: Recipe, path: str | Path) -> None:
    names = [worker.name for worker in recipe.workers]
    if len(set(names)) < len(names) or "frontend" in names:
        raise RecipeError(
            f"{path}: workers need names of their own, other than 'frontend', not {names}"
        )
    for worker in recipe.workers:
        for flag in ("model", "served-model-name"):
            if flag in worker.flags:
                raise RecipeError(
                    f"{path}: worker {worker.name} sets the flag {flag}, which the recipe's "
                    "'model' says for all workers"
                )
    if "router-mode" in recipe.frontend.flags:
        raise RecipeError(f"{path}: router-mode is a key of 'frontend', not one of its flags")
    for flags in (recipe.frontend.flags, *(worker.flags for worker in recipe.workers)):
        for flag in flags:
            if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", flag):
                raise RecipeError(
                    f"{path}: {flag!r} is no flag; write its name without the leading --"
                )


def _one_sentence(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    message, _, where = str(error).partition(" - at ")
    where = where.strip("`").removeprefix("$").removeprefix(".").replace("...", "a key")
    return f"{message} in {where}" if where else message


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, which YAML would silently drop."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
