# SPDX-License-Identifier: MIT
"""The software GPU's launch capture: what reaches the machine, and what is refused before it."""

import ctypes
import struct
from collections.abc import Callable, Iterator
from itertools import pairwise

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
from hypothesis import given
from hypothesis import strategies as st
from ts_gpusim.capture.runtime import Runtime
from ts_gpusim.memory import MemoryMap
from ts_gpusim.properties import device_properties

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


class Recorder:
    """In the machine's place."""

    def __init__(self) -> None:
        self.launches: list[ts_gpusim.Launch] = []
        self.names: list[list[str]] = []

    def __call__(self, launch: ts_gpusim.Launch, memory: MemoryMap) -> None:
        self.launches.append(launch)
        self.names.append([allocation.name for allocation in memory])


@pytest.fixture
def machine() -> Recorder:
    return Recorder()


@pytest.fixture
def gpu(machine: Recorder) -> Iterator[ts_gpusim.Device]:
    with ts_gpusim.device("sm_100a", sms=20, execute=machine) as gpu:
        yield gpu


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
    assert "test_gpusim_capture.py" in launch.ptx  # .file, so that messages name our lines


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
    from cutlass.cute.runtime import _Tensor
    from cutlass.cutlass_dsl import CuTeDSL, cuda_jit_executor, tvm_ffi_provider

    owners = [
        torch.cuda,
        torch.Tensor,
        cutlass.utils.HardwareInfo,
        cuda_jit_executor.CudaDialectJitCompiledFunction,
        cuda_jit_executor.JitExecutor,
        tvm_ffi_provider.TVMFFIJitCompiledFunction,
        tvm_ffi_provider.TVMFFIJitCompiledFunctionWithKwargs,
        _Tensor,
        CuTeDSL._get_dsl().envar,
        CuTeDSL.__mro__[2],
    ]
    before = [dict(vars(owner)) for owner in owners]
    with pytest.raises(KeyError), ts_gpusim.device("sm_103a", execute=machine):
        assert [dict(vars(owner)) for owner in owners] != before
        raise KeyError
    assert [dict(vars(owner)) for owner in owners] == before


# Plain PTX

ADD_PTX = """
.version 8.8
.target sm_90
.address_size 64
.visible .entry add(.param .u64 .ptr .global .align 16 a, .param .u64 b, .param .f32 x,
                    .param .u32 n, .param .align 8 .b8 pair[16])
.reqntid 64, 1, 1
{
    .shared .align 4 .b8 own[48];
    .reg .b64 %rd<2>;
    mov.u64 %rd1, own;
    ret;
}
"""


def launch_add(*arguments: object, **options: object) -> None:
    options = {"grid": (2, 1, 1), "block": (64, 1, 1)} | options
    ts_gpusim.launch_ptx(ADD_PTX, "add", arguments=arguments, **options)


def test_plain_ptx_is_launched_with_its_arguments(gpu, machine):
    a, b = torch.zeros(8), np.zeros((4, 4))
    launch_add(a, b, 1.5, -1, bytes(range(16)), shared_bytes=256)
    (launch,) = machine.launches
    assert launch.parameters == [
        struct.pack("<Q", a.data_ptr()),
        struct.pack("<Q", b.ctypes.data),
        struct.pack("<f", 1.5),
        struct.pack("<i", -1),
        bytes(range(16)),
    ]
    assert launch.shared_bytes == 256
    assert machine.names == [["argument 0", "argument 1"]]


def test_plain_ptx_may_be_a_file(gpu, machine, tmp_path):
    path = tmp_path / "add.ptx"
    path.write_text(ADD_PTX)
    for ptx in (path, str(path)):
        ts_gpusim.launch_ptx(ptx, "add", (1, 1, 1), (64, 1, 1), [0, 0, 0.0, 0, bytes(16)])
    assert len(machine.launches) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, 0, 0.0, 0), r"has 5 parameters \(a, b, x, n, pair\), but 4 arguments were given"),
        ((0.5, 0, 0.0, 0, bytes(16)), r"argument 0 is a float, but parameter a is \.u64"),
        ((0, 0, 1, 0, bytes(16)), r"argument 2 is an int, but parameter x is \.f32"),
        ((0, 0, 0.0, torch.zeros(1), bytes(16)), r"argument 3 is a tensor, .* n is \.u32"),
        ((0, 0, 0.0, 2**32, bytes(16)), r"argument 3 is 4294967296, but .* it does not fit"),
        ((0, 0, 0.0, 0, bytes(12)), r"argument 4 has 12 bytes, but parameter pair is \.b8\[16\]"),
        ((0, 0, 0.0, 0, 7), r"argument 4 is an int, but parameter pair is \.b8\[16\]"),
        ((None, 0, 0.0, 0, bytes(16)), "argument 0 is of type NoneType: give a host tensor"),
        ((torch.zeros(1, device="meta"), 0, 0.0, 0, bytes(16)), "argument 0 is on meta, but the"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, sentence, gpu, machine):
    with pytest.raises((TypeError, ValueError), match=sentence):
        launch_add(*arguments)
    assert not machine.launches


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"grid": (0, 1, 1)}, r"grid \(0, 1, 1\) is not between"),
        ({"block": (32, 1, 1)}, r"block is \(32, 1, 1\), and the kernel requires \(64, 1, 1\)"),
        ({"block": (1024, 2, 1)}, "has 2048 threads, and a block has at most 1024"),
        ({"cluster": (32, 1, 1)}, "has 32 blocks, and a cluster has 1 to 16"),
        ({"cluster": (4, 1, 1)}, r"grid \(2, 1, 1\) is no multiple of cluster \(4, 1, 1\)"),
        ({"shared_bytes": 232401}, r"wants 232449 bytes .*\(232401 dynamic, 48 its own\)"),
    ],
)
def test_launches_that_a_gpu_refuses_are_refused(options, sentence, gpu, machine):
    with pytest.raises(ValueError, match=sentence):
        launch_add(0, 0, 0.0, 0, bytes(16), **options)
    assert not machine.launches


def test_a_kernel_that_the_ptx_lacks_is_named(gpu):
    with pytest.raises(ValueError, match="no kernel named 'sub'; its kernels: add"):
        ts_gpusim.launch_ptx(ADD_PTX, "sub", (1, 1, 1), (64, 1, 1), [])


def test_neither_ptx_nor_a_file_is_refused(gpu):
    with pytest.raises(ValueError, match=r"'missing\.ptx' is neither PTX with an \.entry nor"):
        ts_gpusim.launch_ptx("missing.ptx", "add", (1, 1, 1), (64, 1, 1), [])


def test_launch_ptx_needs_a_device():
    with pytest.raises(RuntimeError, match=r"use `with ts_gpusim\.device\(\.\.\.\):`"):
        launch_add(0, 0, 0.0, 0, bytes(16))


# Memory


def test_a_registered_tensor_is_in_the_memory_of_every_launch(gpu, machine):
    gpu.register(torch.zeros(4), "table")
    by_tvm_ffi(*vectors())
    launch_add(0, 0, 0.0, 0, bytes(16))
    assert machine.names == [["table", "a", "b"], ["table"]]


def test_an_allocation_reaches_from_the_first_element_to_the_last():
    whole = torch.zeros(10, 16, dtype=torch.bfloat16)
    memory = MemoryMap()
    memory.add(whole[2:5, 4:8], "part")
    (part,) = memory
    assert part.begin == whole[2, 4].data_ptr()
    assert part.end == whole[4, 7].data_ptr() + 2
    assert str(part) == "part [3, 4] bf16"
    assert memory.find(part.begin) is memory.find(part.end - 1) is part
    assert memory.find(part.begin - 1) is memory.find(part.end) is None
    assert memory.nearest(part.end + 100) is part


def test_reading_outside_of_every_tensor_names_the_closest():
    tensor = torch.arange(4, dtype=torch.int32)
    memory = MemoryMap()
    memory.add(tensor, "lengths")
    assert memory.read(tensor.data_ptr() + 4, 8) == struct.pack("<2i", 1, 2)
    with pytest.raises(IndexError, match=r"8 bytes at .* the closest is lengths \[4\] i32"):
        memory.read(tensor.data_ptr() + 12, 8)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6))
def test_ranges_hold_exactly_the_bytes_that_some_allocation_holds(slices):
    whole = torch.zeros(64, dtype=torch.uint8)
    memory = MemoryMap()
    for index, (begin, end) in enumerate(slices):
        memory.add(whole[begin:end], str(index))
    ranges = memory.ranges()
    for address in range(whole.data_ptr(), whole.data_ptr() + 64):
        held = any(begin <= address < end for begin, end in ranges)
        assert held == (memory.find(address) is not None)
    assert all(end < begin for (_, end), (begin, _) in pairwise(ranges))
