# SPDX-License-Identifier: MIT
"""How many pages a worker takes."""

import pytest

from dynamo_tokenspeed.engine import capacity
from dynamo_tokenspeed.engine.capacity import MIB, CapacityError, num_host_pages, num_pages
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


def test_there_is_no_host_tier_unless_one_is_asked_for():
    assert num_host_pages(config(), 512, BYTES_PER_PAGE) == 0


def test_kv_offloading_size_is_cut_into_pages():
    asked = config(kv_offloading_bytes=1000 * MIB + 1)
    assert num_host_pages(asked, 512, BYTES_PER_PAGE) == 1000


def test_a_host_tier_without_a_unit_is_refused_when_it_holds_no_page():
    with pytest.raises(CapacityError, match=r"--kv-offloading-size 64 is in bytes .* 4GiB"):
        num_host_pages(config(kv_offloading_bytes=64), 512, BYTES_PER_PAGE)


def test_a_host_tier_beyond_the_machine_is_refused():
    with pytest.raises(CapacityError, match=r"9000 MiB, but only 7680 MiB .* beside the KV cache"):
        num_host_pages(config(kv_offloading_bytes=9000 * MIB), 512, BYTES_PER_PAGE)


def test_the_kv_cache_of_another_device_takes_no_host_memory():
    asked = config(kv_offloading_bytes=8192 * MIB, device="cuda")
    assert num_host_pages(asked, 512, BYTES_PER_PAGE) == 8192
