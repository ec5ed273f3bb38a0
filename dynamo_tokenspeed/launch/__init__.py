# SPDX-License-Identifier: MIT
"""Starts what a recipe describes: Dynamo's frontend and our workers, on this machine.

As a command: `python -m dynamo_tokenspeed.launch --help`. As a library, for tests
and benchmarks: `Deployment`.
"""

from dynamo_tokenspeed.launch.deployment import PLANE_FLAGS, Deployment
from dynamo_tokenspeed.launch.dynamo_programs import (
    Frontend,
    FrontendCommand,
    Worker,
    WorkerCommand,
)
from dynamo_tokenspeed.launch.errors import LaunchError, ProgramExited, RecipeError
from dynamo_tokenspeed.launch.recipe import Recipe, load_recipe

__all__ = [
    "PLANE_FLAGS",
    "Deployment",
    "Frontend",
    "FrontendCommand",
    "LaunchError",
    "ProgramExited",
    "Recipe",
    "RecipeError",
    "Worker",
    "WorkerCommand",
    "load_recipe",
]
