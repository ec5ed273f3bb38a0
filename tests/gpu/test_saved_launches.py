# SPDX-License-Identifier: MIT
"""Saved launches: what a chip is compared with, and how, as far as no chip is needed."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import pytest
from chip_cases import CASES, Wgmma, record
from cuda_driver import TENSOR_TYPES, LaunchAttribute, LaunchConfig, launch_config
from on_chip import compare
from recording import SimulatedGpu
from saved_launch import Buffer, SavedLaunch, Tolerance, differences, saved_in

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # names of the DSL


@pytest.mark.parametrize("name", CASES)
def test_a_saved_launch_does_the_same_again(name, tmp_path):
    launches = record(name)
    for saved in launches:
        saved.save(tmp_path)
    loaded = saved_in(tmp_path)
    assert [saved.name for saved in loaded] == sorted(saved.name for saved in launches)
    for saved in loaded:
        compared = compare(saved, SimulatedGpu())
        assert compared, "it writes something"
        assert [found.different_bits for found in compared] == [0] * len(compared)


@pytest.mark.parametrize("name", ["gemm", "tensor-swizzle128"])
def test_tensor_maps_are_encoded_anew_for_where_the_buffers_are(name):
    gpu = SimulatedGpu()
    (saved,) = record(name)
    compare(saved, gpu)
    assert len(gpu.encoded) == 2


def test_another_result_is_noticed():
    (saved,) = record("integers")
    changed = [buffer.after.copy() for buffer in saved.buffers]
    written = next(i for i, buffer in enumerate(saved.buffers) if buffer.written)
    changed[written][100] ^= 1
    (found,) = differences(saved, changed)
    assert (found.different_bits, found.beyond) == (1, 1)


def test_memory_that_the_launch_must_not_write_is_compared_too():
    (saved,) = record("integers")
    changed = [buffer.after.copy() for buffer in saved.buffers]
    read_only = next(i for i, buffer in enumerate(saved.buffers) if not buffer.written)
    changed[read_only][0] ^= 1
    assert [found.beyond for found in differences(saved, changed)].count(1) == 1


@pytest.mark.parametrize(
    ("tolerance", "beyond"),
    [
        (Tolerance(), 3),
        (Tolerance(absolute=0.01), 2),
        (Tolerance(relative=0.01), 2),
        (Tolerance(absolute=0.01, relative=0.01), 1),  # the infinity is never close
    ],
)
def test_a_tolerance_is_absolute_and_relative(tolerance, beyond):
    expected = np.array([0.0, 100.0, 1.0, np.nan], np.float32)
    found = np.array([0.005, 100.5, np.inf, -np.nan], np.float32)
    buffer = Buffer("d", "f32", np.zeros(16, np.uint8), expected.view(np.uint8))
    saved = dataclasses.replace(nothing(), buffers=[buffer], tolerance=tolerance)
    (difference,) = differences(saved, [found.view(np.uint8)])
    assert (difference.different_bits, difference.beyond) == (3, beyond)


def nothing() -> SavedLaunch:
    return SavedLaunch("", "", "", (1, 1, 1), (1, 1, 1), (1, 1, 1), 0, [], [], Tolerance())


def test_a_case_reads_shared_memory_wherever_the_compiler_puts_it():
    """The addresses in matrix descriptors are added to, not written down."""
    assert "mov.u32 %box, box;" in Wgmma(8, "bf16")._ptx(4, 1024)


# cuda_driver against NVIDIA's own bindings of the same API

driver = pytest.importorskip("cuda.bindings.driver")


def test_the_launch_config_is_laid_out_as_cuda_has_it():
    ours = launch_config((1, 2, 3), (4, 5, 6), (2, 1, 1), 7)
    theirs = driver.CUlaunchConfig(_ptr=ctypes.addressof(ours))
    grid = (theirs.gridDimX, theirs.gridDimY, theirs.gridDimZ)
    block = (theirs.blockDimX, theirs.blockDimY, theirs.blockDimZ)
    assert (grid, block, theirs.sharedMemBytes) == ((1, 2, 3), (4, 5, 6), 7)
    assert (theirs.numAttrs, int(theirs.hStream)) == (1, 0)
    attribute = driver.CUlaunchAttribute(_ptr=ctypes.addressof(ours.attrs.contents))
    assert attribute.id == driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    cluster = attribute.value.clusterDim
    assert (cluster.x, cluster.y, cluster.z) == (2, 1, 1)
    assert ctypes.sizeof(LaunchAttribute) == 72
    assert ctypes.sizeof(LaunchConfig) == 56


def test_a_launch_without_a_cluster_has_no_attribute():
    assert launch_config((1, 1, 1), (32, 1, 1), (1, 1, 1), 0).numAttrs == 0


def test_numbers_are_those_of_cuda_h():
    names = {"u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "s32": "INT32", "u64": "UINT64",
             "s64": "INT64", "f16": "FLOAT16", "f32": "FLOAT32", "f64": "FLOAT64",
             "bf16": "BFLOAT16", "f32.ftz": "FLOAT32_FTZ", "tf32": "TFLOAT32",
             "tf32.ftz": "TFLOAT32_FTZ"}  # fmt: skip
    for ours, theirs in names.items():
        number = getattr(driver.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{theirs}")
        assert TENSOR_TYPES[ours] == number
    import cuda_driver

    attributes = driver.CUdevice_attribute
    of_function = driver.CUfunction_attribute
    options = driver.CUjit_option
    for number, expected in {
        cuda_driver._COMPUTE_CAPABILITY_MAJOR: (
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        ),
        cuda_driver._COMPUTE_CAPABILITY_MINOR: (
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
        ),
        cuda_driver._MAX_DYNAMIC_SHARED_SIZE_BYTES: (
            of_function.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        ),
        cuda_driver._NON_PORTABLE_CLUSTER_SIZE_ALLOWED: (
            of_function.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
        ),
        cuda_driver._ERROR_LOG_BUFFER: options.CU_JIT_ERROR_LOG_BUFFER,
        cuda_driver._ERROR_LOG_BUFFER_SIZE_BYTES: options.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    }.items():
        assert number == expected
