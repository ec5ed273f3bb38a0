# SPDX-License-Identifier: MIT
"""A Hopper GPU computes what the software GPU does: the same PTX, the same memory, on both.

Nothing here runs where there is no such GPU, and pytest says so.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chip_cases import CASES, record
from cuda_driver import Driver
from on_chip import compare, hopper, tensor_map_of
from recording import encoded

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # names of the DSL
]


@pytest.fixture(scope="module")
def chip() -> Iterator[Driver]:
    found = hopper()
    if isinstance(found, str):
        pytest.skip(found)
    yield found
    found.close()


@pytest.mark.parametrize("name", CASES)
def test_the_chip_computes_what_the_software_gpu_does(name, chip):
    for saved in record(name):
        beyond = [str(found) for found in compare(saved, chip) if found.beyond]
        assert not beyond, f"{saved.tolerance}: {beyond}"


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("tensor")])
def test_the_driver_encodes_the_tensor_maps_that_we_read(name, chip):
    (saved,) = record(name)
    for parameter in saved.parameters:
        if parameter.is_tensor_map:
            described = tensor_map_of(parameter.value)
            address = 1 << 40
            assert tensor_map_of(chip.tensor_map(address, described)) == described
            assert chip.tensor_map(address, described)[:8] == encoded(address, described)[:8]
