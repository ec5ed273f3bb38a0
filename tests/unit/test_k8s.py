# SPDX-License-Identifier: MIT
"""k8s/: manifests that say what the recipes say, and a Dockerfile whose inputs exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
import yaml

from dynamo_tokenspeed.launch import load_recipe
from dynamo_tokenspeed.launch.manifest import RECIPES_IN_IMAGE, manifest_text
from dynamo_tokenspeed.launch.recipe import read_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
DOCKERFILE = ROOT / "k8s" / "Dockerfile"


def manifest_of(recipe: Path) -> Path:
    return ROOT / "k8s" / f"{recipe.parent.name}-{recipe.stem}.yaml"


# The part of nvidia.com/v1beta1 that we use; a field outside of it is a spelling mistake.


class Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    pass


class EnvVar(Strict):
    name: str
    value: str


class SecretRef(Strict):
    name: str
    optional: bool


class EnvFrom(Strict):
    secret_ref: SecretRef


class VolumeMount(Strict):
    name: str
    mount_path: str


class Resources(Strict):
    requests: dict[Literal["cpu", "memory", "nvidia.com/gpu"], str]
    limits: dict[Literal["cpu", "memory", "nvidia.com/gpu"], str]


class Container(Strict):
    name: Literal["main"]
    image: str
    command: list[str]
    args: list[str]
    resources: Resources
    env: list[EnvVar] = []
    env_from: list[EnvFrom] = []
    volume_mounts: list[VolumeMount] = []


class Claim(Strict):
    claim_name: str


class Volume(Strict):
    name: str
    persistent_volume_claim: Claim


class PodSpec(Strict):
    containers: Annotated[list[Container], msgspec.Meta(min_length=1, max_length=1)]
    termination_grace_period_seconds: int = 30
    volumes: list[Volume] = []


class PodTemplate(Strict):
    spec: PodSpec


class Component(Strict):
    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
    type: Literal["frontend", "worker"]
    replicas: Annotated[int, msgspec.Meta(ge=1)]
    pod_template: PodTemplate


class GraphSpec(Strict):
    components: list[Component]


class Metadata(Strict):
    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]


class DynamoGraphDeployment(Strict):
    api_version: Literal["nvidia.com/v1beta1"]
    kind: Literal["DynamoGraphDeployment"]
    metadata: Metadata
    spec: GraphSpec


@pytest.fixture(params=RECIPES, ids=lambda path: path.parent.name)
def recipe_path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def graph(recipe_path: Path) -> DynamoGraphDeployment:
    content: Any = yaml.safe_load(manifest_of(recipe_path).read_text())
    return msgspec.convert(content, DynamoGraphDeployment)


def test_there_is_one_manifest_for_each_recipe() -> None:
    assert sorted((ROOT / "k8s").glob("*.yaml")) == sorted(map(manifest_of, RECIPES))


def test_the_manifest_is_the_one_that_the_recipe_makes(recipe_path: Path) -> None:
    assert manifest_of(recipe_path).read_text() == manifest_text(recipe_path)


def test_the_worker_arguments_are_the_recipes_flags(
    recipe_path: Path, graph: DynamoGraphDeployment
) -> None:
    recipe = read_recipe(recipe_path).in_folder(RECIPES_IN_IMAGE / recipe_path.parent.name)
    workers = [component for component in graph.spec.components if component.type == "worker"]
    assert [worker.name for worker in workers] == [worker.name for worker in recipe.workers]
    for component, worker in zip(workers, recipe.workers, strict=True):
        container = component.pod_template.spec.containers[0]
        assert container.command == ["python3", "-m", "dynamo.tokenspeed"]
        assert container.args == recipe.worker_argv(worker)
        assert component.replicas == worker.replicas


def test_the_frontend_arguments_are_the_recipes_flags(
    recipe_path: Path, graph: DynamoGraphDeployment
) -> None:
    frontend = graph.spec.components[0]
    assert frontend.type == "frontend"
    container = frontend.pod_template.spec.containers[0]
    assert container.command == ["python3", "-m", "dynamo.frontend"]
    assert container.args == load_recipe(recipe_path).frontend_argv()


def test_only_workers_take_gpus_and_as_many_as_the_recipe_needs(
    recipe_path: Path, graph: DynamoGraphDeployment
) -> None:
    gpus = load_recipe(recipe_path).hardware.gpus
    for component in graph.spec.components:
        limits = component.pod_template.spec.containers[0].resources.limits
        wanted = str(gpus) if component.type == "worker" and gpus else None
        assert limits.get("nvidia.com/gpu") == wanted


def test_every_mounted_volume_is_declared(graph: DynamoGraphDeployment) -> None:
    for component in graph.spec.components:
        pod = component.pod_template.spec
        mounted = {mount.name for container in pod.containers for mount in container.volume_mounts}
        assert mounted == {volume.name for volume in pod.volumes}


def test_a_worker_has_time_to_drain(graph: DynamoGraphDeployment) -> None:
    # Dynamo's grace period (5 s), the worker's --drain-timeout (20 s), and some to spare.
    for component in graph.spec.components:
        if component.type == "worker":
            assert component.pod_template.spec.termination_grace_period_seconds > 25


# Dockerfile

INSTRUCTIONS = {"FROM", "RUN", "ENV", "ARG", "WORKDIR", "COPY", "USER", "CMD"}


@pytest.fixture
def instructions() -> list[tuple[str, str]]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    logical = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in logical if line]


def test_every_instruction_of_the_dockerfile_is_known(instructions) -> None:
    assert {name for name, _ in instructions} <= INSTRUCTIONS


def test_every_file_that_the_dockerfile_copies_exists(instructions) -> None:
    copies = [text.split() for name, text in instructions if name == "COPY"]
    sources = [word for words in copies if "--from=build" not in words for word in words[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_every_file_that_the_dockerfile_copies_passes_the_ignore_file(instructions) -> None:
    lines = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copies = [text.split() for name, text in instructions if name == "COPY"]
    sources = [word for words in copies if "--from=build" not in words for word in words[:-1]]
    assert {source.split("/")[0] for source in sources} == let_in


def test_every_package_is_installed_with_the_pinned_versions(instructions) -> None:
    runs = " && ".join(text for name, text in instructions if name == "RUN")
    installs = [step for step in runs.split("&&") if re.search(r"pip install", step)]
    assert installs
    for step in installs:
        assert "-c constraints.txt" in step or "--no-deps" in step


def test_the_dockerfile_pins_the_dynamo_version_that_make_installs(instructions) -> None:
    version = dict(text.split("=") for name, text in instructions if name == "ARG")["DYNAMO"]
    assert re.search(rf"^DYNAMO \?= {re.escape(version)}$", (ROOT / "Makefile").read_text(), re.M)


def test_the_image_runs_without_root(instructions) -> None:
    users = [text for name, text in instructions if name == "USER"]
    assert users and not users[-1].startswith(("0", "root"))


def test_the_image_starts_a_recipe_that_it_has(instructions) -> None:
    command = json.loads(dict(instructions)["CMD"])
    assert (ROOT / command[command.index("serve") + 1]).exists()
