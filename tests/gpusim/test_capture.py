# SPDX-License-Identifier: MIT
"""The software GPU's launch capture: what reaches the machine, and what is refused before it."""

import ctypes
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cutlass
import cutlass.cute as cute
import cutlass.memory
import cutlass.utils
import numpy as np
import pytest
import torch
import ts_gpusim
import tvm_ffi
from cutlass.base_dsl.common import DSLCudaRuntimeError
from cutlass.cute.nvgpu import cpasync
from cutlass.cute.runtime import from_dlpack, make_fake_tensor
from ts_gpusim.capture.runtime import Runtime, library_path
from ts_gpusim.memory import MemoryMap
from ts_gpusim.properties import device_properties

pytest_plugins = ["gpusim_recorder"]

THREADS = 128


@cute.kernel
def scale_kernel(a: cute.Tensor, b: cute.Tensor, factor: cutlass.Float32, n: cutlass.Int32):
    thread, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    i = block * THREADS + thread
    if i < n:
        b[i] = a[i] * factor


@cute.jit
def scale(a: cute.Tensor, b: cute.Tensor, factor: cutlass.Float32, n: cutlass.Int32):
    blocks = cute.ceil_div(n, THREADS)
    scale_kernel(a, b, factor, n).launch(grid=[blocks, 1, 1], block=[THREADS, 1, 1], smem=4096)


@cute.jit
def scale_twice(a: cute.Tensor, b: cute.Tensor, factor: cutlass.Float32, n: cutlass.Int32):
    scale_kernel(a, b, factor, n).launch(grid=[1, 1, 1], block=[THREADS, 1, 1])
    scale_kernel(b, a, factor, n).launch(
        grid=[2, 1, 1], block=[THREADS, 1, 1], cluster=[2, 1, 1], use_pdl=True
    )


@cute.jit
def scale_in_too_much_memory(
    a: cute.Tensor, b: cute.Tensor, factor: cutlass.Float32, n: cutlass.Int32
):
    scale_kernel(a, b, factor, n).launch(grid=[1, 1, 1], block=[THREADS, 1, 1], smem=232449)


@cute.kernel
def load_tile_kernel(tma: cute.CopyAtom, source: cute.Tensor, tile: cute.Layout):
    allocator = cutlass.memory.SmemAllocator()
    barrier = allocator.allocate_array(cutlass.Int64, 1)
    staged = allocator.allocate_tensor(cutlass.BFloat16, tile, 1024)
    parts = cute.local_tile(source, (64, 64), (0, 0))
    to, origin = cpasync.tma_partition(
        tma,
        0,
        cute.make_layout(1),
        cute.group_modes(staged, 0, 2),
        cute.group_modes(parts, 0, 2),
    )
    cute.copy(tma, origin, to, tma_bar_ptr=barrier)


@cute.jit
def load_tile(a: cute.Tensor):
    tile = cute.make_layout((64, 64), stride=(64, 1))
    tma, source = cpasync.make_tiled_tma_atom(cpasync.CopyBulkTensorTileG2SOp(), a, tile, (64, 64))
    load_tile_kernel(tma, source, tile).launch(
        grid=[2, 1, 1], block=[THREADS, 1, 1], cluster=[2, 1, 1]
    )


def vectors(n: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(n, dtype=torch.float32), torch.zeros(n)


def compiled(function: Callable[..., None], options: str = "--enable-tvm-ffi"):
    n = cute.sym_int32()
    vector = make_fake_tensor(cutlass.Float32, (n,), (1,), assumed_align=16)
    return cute.compile(
        function, vector, vector, cutlass.Float32(0), cutlass.Int32(0), options=options
    )


def address_in(parameter: bytes) -> int:
    return struct.unpack_from("<Q", parameter)[0]


def recorded_address(launch: ts_gpusim.Launch, index: int) -> int:
    return address_in(launch.parameters[index])


# Which launches arrive, and with what


def by_tvm_ffi(a: torch.Tensor, b: torch.Tensor) -> None:
    compiled(scale)(a, b, 3.0, len(a))


def by_plain_call(a: torch.Tensor, b: torch.Tensor) -> None:
    compiled(scale, "")(from_dlpack(a), from_dlpack(b), cutlass.Float32(3), cutlass.Int32(len(a)))


def by_plain_call_with_torch_tensors(a: torch.Tensor, b: torch.Tensor) -> None:
    compiled(scale, "")(a, b, cutlass.Float32(3), cutlass.Int32(len(a)))


def without_compile(a: torch.Tensor, b: torch.Tensor) -> None:
    scale(from_dlpack(a), from_dlpack(b), cutlass.Float32(3), cutlass.Int32(len(a)))


def by_executor(a: torch.Tensor, b: torch.Tensor) -> None:
    executor = compiled(scale, "").to(0)
    executor(from_dlpack(a), from_dlpack(b), cutlass.Float32(3), cutlass.Int32(len(a)))


@pytest.mark.parametrize(
    "call",
    [by_tvm_ffi, by_plain_call, by_plain_call_with_torch_tensors, without_compile, by_executor],
)
def test_every_way_to_call_a_host_function_arrives_with_its_launch(call, gpu, machine):
    a, b = vectors()
    call(a, b)
    (launch,) = machine.launches
    assert launch.grid == (4, 1, 1)
    assert launch.block == (THREADS, 1, 1)
    assert launch.cluster == (1, 1, 1)
    assert launch.shared_bytes == 4096
    assert recorded_address(launch, 0) == a.data_ptr()
    assert recorded_address(launch, 1) == b.data_ptr()
    assert launch.parameters[2:] == [struct.pack("<f", 3), struct.pack("<i", 500)]
    assert machine.names == [["a", "b"]]


def test_the_ptx_is_that_of_the_compiled_function_for_the_chosen_architecture(machine):
    with ts_gpusim.device("sm_90a", execute=machine):
        by_tvm_ffi(*vectors())
    (launch,) = machine.launches
    assert ".target sm_90a" in launch.ptx
    assert f".entry {launch.kernel}(" in launch.ptx
    assert Path(__file__).name in launch.ptx  # .file, so that messages name our lines


def test_two_kernels_of_one_host_function_arrive_in_order(gpu, machine):
    a, b = vectors(100)
    compiled(scale_twice)(a, b, 2.0, 100)
    first, second = machine.launches
    assert (recorded_address(first, 0), recorded_address(second, 0)) == (a.data_ptr(), b.data_ptr())
    assert (first.cluster, second.cluster) == ((1, 1, 1), (2, 1, 1))
    assert not first.attributes.programmatic_stream_serialization
    assert second.attributes.programmatic_stream_serialization
    assert not second.attributes.cooperative


def test_a_tensor_map_arrives_with_its_address_and_extents(gpu, machine):
    a = torch.zeros(100, 144, dtype=torch.bfloat16)
    fake = make_fake_tensor(
        cutlass.BFloat16,
        (cute.sym_int32(), cute.sym_int32(divisibility=8)),
        (cute.sym_int64(divisibility=16), 1),
        assumed_align=16,
    )
    cute.compile(load_tile, fake, options="--enable-tvm-ffi")(a[:, :64])
    (launch,) = machine.launches
    assert launch.cluster == (2, 1, 1)
    (tensor_map,) = (parameter for parameter in launch.parameters if len(parameter) == 128)
    words = struct.unpack("<32I", tensor_map)
    assert address_in(tensor_map) == a.data_ptr()
    assert words[8:10] == (64 - 1, 100 - 1)


def test_a_second_call_of_the_same_function_compiles_nothing(gpu, machine):
    a, b = vectors()
    without_compile(a, b)
    without_compile(a, b)
    first, second = machine.launches
    assert first.ptx is second.ptx


@pytest.mark.parametrize("wrap", [np.asarray, lambda tensor: tensor.detach().requires_grad_()])
def test_anything_with_dlpack_in_host_memory_is_a_tensor(wrap, gpu, machine):
    a, b = vectors()
    compiled(scale)(wrap(a), b, 3.0, 500)
    assert recorded_address(machine.launches[0], 0) == a.data_ptr()


def test_a_tensor_wrapped_before_the_block_is_one_of_the_calls(machine):
    a, b = vectors()
    before = from_dlpack(a)
    with ts_gpusim.device("sm_100a", execute=machine):
        scale(before, from_dlpack(b), cutlass.Float32(3), cutlass.Int32(500))
    assert machine.names == [["a", "b"]]


# What the machine's failures do


@pytest.mark.parametrize("call", [by_tvm_ffi, by_plain_call, without_compile])
def test_an_exception_of_the_machine_reaches_the_caller_as_it_is(call):
    failure = KeyError("a wild pointer")

    def fail(launch: ts_gpusim.Launch, memory: MemoryMap) -> None:
        raise failure from ZeroDivisionError()

    with (
        ts_gpusim.device("sm_100a", execute=fail),
        pytest.raises(KeyError, match="a wild pointer") as raised,
    ):
        call(*vectors())
    assert raised.value is failure
    assert isinstance(failure.__cause__, ZeroDivisionError)


def test_no_kernel_is_launched_after_one_that_failed():
    launches = []

    def fail(launch: ts_gpusim.Launch, memory: MemoryMap) -> None:
        launches.append(launch)
        raise RuntimeError("the first")

    with ts_gpusim.device("sm_100a", execute=fail):
        with pytest.raises(RuntimeError, match="the first"):
            compiled(scale_twice)(*vectors(100), 2.0, 100)
        assert len(launches) == 1
        with pytest.raises(RuntimeError, match="the first"):
            by_tvm_ffi(*vectors())
        assert len(launches) == 2


# Bad input: one sentence each


def test_too_much_shared_memory_is_refused(gpu):
    expected = (
        r"wants 232449 bytes of shared memory \(232449 dynamic, 0 its own\), "
        r"and a block has at most 232448"
    )
    with pytest.raises(ValueError, match=expected):
        compiled(scale_in_too_much_memory)(*vectors(100), 2.0, 100)


@pytest.mark.parametrize("call", [by_tvm_ffi, by_plain_call])
def test_a_tensor_that_is_not_in_host_memory_is_refused(call, gpu):
    _, b = vectors()
    with pytest.raises(ValueError, match="is on meta, but the software GPU works on host memory"):
        call(torch.zeros(500, device="meta"), b)


def test_a_function_compiled_for_another_architecture_is_refused(machine):
    with ts_gpusim.device("sm_90a", execute=machine):
        function = compiled(scale)
    with (
        ts_gpusim.device("sm_100a", execute=machine),
        pytest.raises(ValueError, match="compiled for sm_90a, and the device is sm_100a"),
    ):
        function(*vectors(), 3.0, 500)


@pytest.mark.parametrize("options", ["", "--enable-tvm-ffi"])
def test_a_function_compiled_outside_is_refused_inside(options, gpu, monkeypatch):
    function = compiled(scale, options)
    monkeypatch.delattr(function, "_ts_gpusim_captured")  # what the patched DSL left on it
    with pytest.raises(RuntimeError, match=r"was compiled outside ts_gpusim.device\(\.\.\.\)"):
        function(*map(from_dlpack, vectors()), 3.0, 500)


@pytest.mark.parametrize("options", ["", "--enable-tvm-ffi"])
def test_a_function_compiled_inside_finds_no_device_outside(options, machine):
    tensors = vectors()
    with ts_gpusim.device("sm_100a", execute=machine):
        function = compiled(scale, options)
        wrapped = [from_dlpack(tensor, enable_tvm_ffi=bool(options)) for tensor in tensors]
        function(*wrapped, cutlass.Float32(3), cutlass.Int32(500))
    with pytest.raises(DSLCudaRuntimeError, match="cudaErrorNoDevice"):
        function(*wrapped, cutlass.Float32(3), cutlass.Int32(500))
    assert len(machine.launches) == 1


def test_a_cuda_runtime_that_was_loaded_before_is_refused(tmp_path):
    other = shutil.copy(library_path(), tmp_path / "libcute_dsl_runtime.so")
    program = f"""
import ctypes, ts_gpusim
ctypes.CDLL({str(other)!r}, ctypes.RTLD_GLOBAL)
with ts_gpusim.device("sm_100a", execute=print):
    print("entered")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "has compiled for a real GPU in this process already" in done.stderr
    assert "entered" not in done.stdout


def test_a_function_that_the_runtime_does_not_have_is_named():
    problems: list[str] = []
    runtime = Runtime(device_properties("sm_100a"), lambda request: None, problems.append)
    try:
        assert runtime._library._cudaMemcpyAsync() != 0
        assert runtime._library._cudaDeviceGetAttribute(ctypes.byref(ctypes.c_int()), 999, 0) != 0
    finally:
        runtime.disconnect()
    assert problems == [
        "the kernel's host code calls cudaMemcpyAsync, which the software GPU's CUDA runtime does "
        "not have",
        "the kernel's host code asks for device attribute 999, which the software GPU does not "
        "know",
    ]


def test_a_symbol_that_the_runtime_lacks_is_named(gpu):
    from cutlass.cutlass_dsl import CuTeDSL

    message = "JIT session error: Symbols not found: [ _cudaNew ]"
    with pytest.raises(RuntimeError, match="host code needs _cudaNew, which the software GPU's"):
        raise CuTeDSL._get_dsl()._jit_lookup_error(message)


def test_one_device_at_a_time(gpu, machine):
    with (
        pytest.raises(RuntimeError, match="a software GPU sm_100a is active"),
        ts_gpusim.device("sm_90a", execute=machine),
    ):
        pass


def test_unknown_architectures_are_refused(machine):
    expected = "has no architecture 'sm_80'; it has sm_90a, sm_100a, sm_103a"
    with pytest.raises(ValueError, match=expected), ts_gpusim.device("sm_80", execute=machine):
        pass


# What kernels' Python code asks, and that all of it is put back


def test_questions_about_the_gpu_are_answered(gpu):
    assert torch.cuda.get_device_capability("cpu") == (10, 0)
    assert torch.cuda.get_device_properties(0).multi_processor_count == 20
    assert cutlass.utils.HardwareInfo().get_max_active_clusters(2) == 10
    with tvm_ffi.use_torch_stream():
        pass


def test_every_patch_is_undone(machine):
    from cutlass.base_dsl import compiler, dsl, jit_executor
    from cutlass.cute.runtime import _Tensor
    from cutlass.cutlass_dsl import CuTeDSL, cuda_jit_executor, tvm_ffi_provider

    owners = [
        torch.cuda,
        torch.Tensor,
        cutlass.utils.HardwareInfo,
        cuda_jit_executor.CudaDialectJitCompiledFunction,
        compiler.CompileOptions,
        dsl.BaseDSL,
        jit_executor.ExecutionArgs,
        jit_executor.JitCompiledFunction,
        jit_executor.JitExecutor,
        tvm_ffi_provider.TVMFFIJitCompiledFunction,
        tvm_ffi_provider.TVMFFIJitCompiledFunctionWithKwargs,
        _Tensor,
        CuTeDSL._get_dsl().envar,
    ]
    before = [dict(os.environ), *(dict(vars(owner)) for owner in owners)]
    with pytest.raises(KeyError), ts_gpusim.device("sm_103a", execute=machine):
        inside = [dict(os.environ), *(dict(vars(owner)) for owner in owners)]
        assert not any(a == b for a, b in zip(inside, before, strict=True))
        raise KeyError
    assert [dict(os.environ), *(dict(vars(owner)) for owner in owners)] == before


# A public kernel, as its package calls it


@pytest.mark.slow
def test_tokenspeed_mla_decode_runs_unmodified(gpu, machine):
    from tokenspeed_mla.mla_decode import tokenspeed_mla_decode

    heads, latent, rope, page, tokens = 128, 512, 64, 64, 256
    query = torch.zeros(1, 1, heads, latent + rope, dtype=torch.bfloat16)
    cache = torch.zeros(7, page, latent + rope, dtype=torch.bfloat16)
    pages = torch.tensor([[6, 2, 0, 5]], dtype=torch.int32)
    tokenspeed_mla_decode(
        query,
        cache,
        torch.zeros(1 << 26, dtype=torch.int8),
        latent,
        rope,
        pages,
        torch.tensor([tokens], dtype=torch.int32),
        tokens,
        (latent + rope) ** -0.5,
        enable_pdl=True,
    )
    attention, reduction = machine.launches
    assert attention.ptx is reduction.ptx
    assert attention.cluster == (2, 1, 1)
    assert attention.block == (384, 1, 1)
    assert attention.shared_bytes == 227 * 1024
    assert attention.attributes.programmatic_stream_serialization
    maps = [address_in(parameter) for parameter in attention.parameters if len(parameter) == 128]
    assert {query.data_ptr(), cache.data_ptr()} <= set(maps)
    assert reduction.grid == (heads, 1, 1)
    assert "page_table" in machine.names[0]
