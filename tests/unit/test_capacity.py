# SPDX-License-Identifier: MIT
"""How many pages a worker takes."""

import pytest

from dynamo_tokenspeed.engine import capacity
from dynamo_tokenspeed.engine.capacity import MIB, CapacityError, num_pages
from dynamo_tokenspeed.protocol import EngineConfig

BYTES_PER_PAGE = 1 * MIB


@pytest.fixture(autouse=True)
def eight_gib_available(monkeypatch):
    monkeypatch.setattr(capacity, "available_memory", lambda: 8192 * MIB)


def config(**changes) -> EngineConfig:
    return EngineConfig(model="m", page_size=16, **changes)


def test_num_pages_is_taken_as_given():
    assert num_pages(config(num_pages=300), 4096, BYTES_PER_PAGE) == 300


def test_too_few_pages_for_one_sequence_name_the_flag_and_the_way_out():
    with pytest.raises(CapacityError, match=r"--num-pages 255 .* at least 256 pages or lower"):
        num_pages(config(num_pages=255), 4096, BYTES_PER_PAGE)


def test_kv_cache_memory_decides_when_given():
    assert num_pages(config(kv_cache_bytes=1000 * MIB), 4096, BYTES_PER_PAGE) == 1000


def test_kv_cache_memory_below_one_sequence_is_refused():
    with pytest.raises(CapacityError, match=r"needs 256 MiB .* --kv-cache-memory is 10 MiB"):
        num_pages(config(kv_cache_bytes=10 * MIB), 4096, BYTES_PER_PAGE)


def test_kv_cache_memory_beyond_the_machine_is_refused():
    with pytest.raises(CapacityError, match=r"only 8192 MiB of memory are available"):
        num_pages(config(kv_cache_bytes=9000 * MIB), 4096, BYTES_PER_PAGE)


def test_the_default_is_512_mib():
    assert num_pages(config(), 4096, BYTES_PER_PAGE) == 512


def test_the_default_grows_to_hold_one_long_sequence():
    assert num_pages(config(), 16 * 2000, BYTES_PER_PAGE) == 2000


def test_the_default_leaves_half_of_the_memory_and_says_so():
    with pytest.raises(CapacityError, match=r"half of the available memory is 4096 MiB"):
        num_pages(config(), 16 * 5000, BYTES_PER_PAGE)
