# SPDX-License-Identifier: MIT
"""The recipe format, and every recipe that is shipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dynamo_tokenspeed.launch import RecipeError, load_recipe
from dynamo_tokenspeed.launch.recipe import to_argv

RECIPES = Path(__file__).parents[2] / "recipes"
SHIPPED = sorted(RECIPES.glob("*/*.yaml"))

MINIMAL = """
name: small
description: a recipe with nothing optional in it
hardware: {}
model: {path: ., name: small}
workers:
- name: agg
"""


@pytest.fixture
def recipe_file(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "agg.yaml"
        path.write_text(text)
        return path

    return write


def the_error(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith((str(path), "the recipe", "there is", "cannot read"))
    assert "\n" not in message
    return message


def as_pairs(argv: list[str]) -> dict[str, str | None]:
    """Each flag with its value, None for a switch."""
    pairs: dict[str, str | None] = {}
    for word in argv:
        if word.startswith("--"):
            pairs[word] = None
        else:
            pairs[list(pairs)[-1]] = word
    return pairs


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.parent.name


@pytest.fixture(scope="module")
def worker_help() -> str:
    command = [sys.executable, "-m", "dynamo_tokenspeed.dynamo_package", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_every_flag_of_a_shipped_recipe_is_one_that_the_worker_knows(
    path: Path, worker_help: str
) -> None:
    recipe = load_recipe(path)
    words = set(worker_help.replace(",", " ").split())
    for worker in recipe.workers:
        flags = [word for word in recipe.worker_argv(worker) if word.startswith("--")]
        assert [flag for flag in flags if flag not in words] == []


def test_the_tiny_recipe_serves_the_checkpoint_beside_it() -> None:
    recipe = load_recipe(RECIPES / "tiny-kimi" / "agg.yaml")
    assert Path(recipe.model.path) == RECIPES / "tiny-kimi"
    assert (Path(recipe.model.path) / "config.json").exists()


def test_the_kimi_recipe_is_nvfp4_with_fp8_kv_on_four_gpus() -> None:
    recipe = load_recipe(RECIPES / "kimi-k2.5" / "agg.yaml")
    flags = as_pairs(recipe.worker_argv(recipe.workers[0]))
    assert recipe.hardware.gpus == 4
    assert flags["--model"] == "nvidia/Kimi-K2.5-NVFP4"
    assert flags["--quantization"] == "nvfp4"
    assert flags["--kv-cache-dtype"] == "fp8"
    assert flags["--tensor-parallel-size"] == "4"
    assert flags["--enable-expert-parallel"] is None
    assert flags["--dyn-reasoning-parser"] == "kimi_k25"
    assert flags["--dyn-tool-call-parser"] == "kimi_k2"


def test_what_a_recipe_leaves_out_has_a_default(recipe_file) -> None:
    recipe = load_recipe(recipe_file(MINIMAL))
    assert recipe.frontend.router_mode == "kv"
    assert recipe.workers[0].replicas == 1


def test_paths_are_relative_to_the_recipe(recipe_file, tmp_path: Path) -> None:
    path = recipe_file(MINIMAL + "  flags: {custom-jinja-template: ../t.jinja, topic: a/b}\n")
    recipe = load_recipe(path)
    argv = recipe.worker_argv(recipe.workers[0])
    assert as_pairs(argv) == {
        "--model": str(tmp_path),
        "--served-model-name": "small",
        "--custom-jinja-template": str(tmp_path.parent / "t.jinja"),
        "--topic": "a/b",
    }


def test_a_name_on_the_hub_stays_as_it_is(recipe_file) -> None:
    recipe = load_recipe(recipe_file(MINIMAL.replace("path: .,", "path: some/Model,")))
    assert recipe.model.path == "some/Model"


@pytest.mark.parametrize(
    ("flags", "argv"),
    [
        ({"max-num-seqs": 8}, ["--max-num-seqs", "8"]),
        ({"trust-remote-code": True}, ["--trust-remote-code"]),
        ({"enable-prefix-caching": False}, ["--no-enable-prefix-caching"]),
        ({"gpu-memory-utilization": 0.8}, ["--gpu-memory-utilization", "0.8"]),
        ({"served-model-name": ["a", "b"]}, ["--served-model-name", "a", "b"]),
        ({"kv-events-config": {"topic": "x"}}, ["--kv-events-config", '{"topic": "x"}']),
    ],
)
def test_flags_become_a_command_line(flags, argv) -> None:
    assert to_argv(flags) == argv


def test_another_model_is_served_under_its_own_name(recipe_file, tmp_path: Path) -> None:
    other = tmp_path / "other-model"
    recipe = load_recipe(recipe_file(MINIMAL)).with_model(other)
    assert (recipe.model.path, recipe.model.name) == (str(other), "other-model")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("name: small", "nmae: small"), "nmae"),
        (("- name: agg", "- name: agg\n  replica: 2"), "replica"),
        (("hardware: {}", "hardware: {gpu: 4}"), "gpu"),
        (("- name: agg", "- name: agg\n  replicas: 0"), "replicas"),
        (("- name: agg", "- name: agg\n  replicas: two"), "replicas"),
        (("workers:\n- name: agg", "workers: []"), "workers"),
        (("- name: agg", "- name: agg\n- name: agg"), "names of their own"),
        (("- name: agg", "- name: frontend"), "names of their own"),
        (("- name: agg", "- name: agg\n  flags: {model: x}"), "sets the flag model"),
        (("- name: agg", "- name: agg\n  flags: {--dtype: x}"), "without the leading --"),
        (("hardware: {}", "hardware: {}\nhardware: {}"), "'hardware' is written twice"),
        (("hardware: {}", "hardware: {memory: lots}"), "memory"),
        (("hardware: {}", "frontend: {flags: {router-mode: kv}}\nhardware: {}"), "router-mode"),
        (("name: small", "name: [small"), "line "),
        (("description: ", "#"), "description"),
    ],
)
def test_a_bad_recipe_is_told_in_one_sentence(recipe_file, change, told: str) -> None:
    text = MINIMAL.replace(*change, 1)
    assert text != MINIMAL
    assert told in the_error(recipe_file(text))


def test_a_missing_recipe_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert the_error(path) == f"there is no recipe {path}"


def test_the_number_of_workers_is_the_recipes_when_there_are_several_kinds(recipe_file) -> None:
    recipe = load_recipe(recipe_file(MINIMAL + "- name: other\n"))
    with pytest.raises(RecipeError, match="2 kinds of workers"):
        recipe.with_replicas(3)
