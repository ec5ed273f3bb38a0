# SPDX-License-Identifier: MIT
"""The command `manifest`: a recipe as a DynamoGraphDeployment for Kubernetes.

What the operator provides by itself is left to it: discovery, the system port,
probes (two hours to start), a shared-memory volume of 8 GiB.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from dynamo_tokenspeed.launch.recipe import Recipe, read_recipe

IMAGE = "dynamo-tokenspeed:0.1.0"  # what k8s/README.md builds
RECIPES_IN_IMAGE = Path("/opt/dynamo-tokenspeed/recipes")
MODEL_CACHE = "/models"

# After SIGTERM: Dynamo's grace period (5 s), then the worker's --drain-timeout (20 s).
_TERMINATION_SECONDS = 60


def add_command(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "manifest",
        help="print a recipe as a DynamoGraphDeployment for Kubernetes",
        description="Print a recipe as a DynamoGraphDeployment (nvidia.com/v1beta1); the files "
        "in k8s/ are made by this command.",
    )
    parser.add_argument("recipe", type=Path, help="recipes/…/….yaml")
    parser.add_argument("--image", default=IMAGE, help=f"container image (default: {IMAGE})")
    parser.set_defaults(run=print_manifest)


def print_manifest(args: argparse.Namespace) -> int:
    print(manifest_text(args.recipe, args.image), end="")
    return 0


def manifest_text(path: Path, image: str = IMAGE) -> str:
    """The manifest of the recipe at `path`, as YAML with a comment that says where it is from."""
    place = f"{path.parent.name}/{path.name}"
    recipe = read_recipe(path).in_folder(RECIPES_IN_IMAGE / path.parent.name)
    name = f"{recipe.name}-{path.stem}".replace(".", "-")
    return (
        "# SPDX-License-Identifier: MIT\n"
        f"# Made from recipes/{place}, which is where to change it:\n"
        f"#   python -m dynamo_tokenspeed.launch manifest recipes/{place}\n"
    ) + yaml.safe_dump(manifest(recipe, name, image), sort_keys=False, width=100)


def manifest(recipe: Recipe, name: str, image: str) -> dict[str, Any]:
    frontend = _container(
        image, "dynamo.frontend", recipe.frontend_argv(), recipe.frontend.env, {"cpu": "1"}
    )
    components = [_component(recipe, "frontend", "frontend", 1, frontend)]
    for worker in recipe.workers:
        container = _container(
            image, "dynamo.tokenspeed", recipe.worker_argv(worker), worker.env, _resources(recipe)
        )
        components.append(_component(recipe, worker.name, "worker", worker.replicas, container))
    return {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": name},
        "spec": {"components": components},
    }


def _component(
    recipe: Recipe, name: str, type: str, replicas: int, container: dict[str, Any]
) -> dict[str, Any]:
    pod: dict[str, Any] = {"containers": [container]}
    if type == "worker":
        pod["terminationGracePeriodSeconds"] = _TERMINATION_SECONDS
    if _is_on_hub(recipe):
        container["env"] = [*container.get("env", ()), {"name": "HF_HOME", "value": MODEL_CACHE}]
        container["envFrom"] = [{"secretRef": {"name": "hf-token-secret", "optional": True}}]
        container["volumeMounts"] = [{"name": "model-cache", "mountPath": MODEL_CACHE}]
        claim = {"claimName": "model-cache"}
        pod["volumes"] = [{"name": "model-cache", "persistentVolumeClaim": claim}]
    return {"name": name, "type": type, "replicas": replicas, "podTemplate": {"spec": pod}}


def _container(
    image: str, module: str, argv: list[str], env: dict[str, str], resources: dict[str, str]
) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "main",
        "image": image,
        "command": ["python3", "-m", module],
        "args": argv,
        "resources": {"requests": dict(resources), "limits": dict(resources)},
    }
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    return container


def _resources(recipe: Recipe) -> dict[str, str]:
    hardware = recipe.hardware
    resources = {"cpu": str(hardware.cpus), "memory": hardware.memory}
    if hardware.gpus:
        resources["nvidia.com/gpu"] = str(hardware.gpus)
    return resources


def _is_on_hub(recipe: Recipe) -> bool:
    return not recipe.model.path.startswith("/")
