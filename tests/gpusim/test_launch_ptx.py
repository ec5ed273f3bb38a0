# SPDX-License-Identifier: MIT
"""Plain PTX on the software GPU: its arguments, and the launches that are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
import ts_gpusim

pytest_plugins = ["gpusim_recorder"]

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
    with pytest.raises(ts_gpusim.LaunchError, match=sentence):
        launch_add(*arguments)
    assert not machine.launches


class OnAnotherDevice:
    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self) -> object:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (OnAnotherDevice(), "is on another device, but the software GPU works on host memory"),
        (torch.eye(2).to_sparse(), r"torch\.strided; pass a dense tensor that may be written"),
        (torch.zeros(2, dtype=torch.complex64).conj(), "conjugate bit set; pass a dense tensor"),
        (np.broadcast_to(np.zeros(1), (4,)), "readonly array .*; pass a dense tensor that may be"),
        (np.array(["text"]), "signed/unsigned integers, float .*; pass a dense tensor"),
        (np.zeros(4)[::-1], r"backwards \(a negative stride\), .*: pass a copy"),
    ],
)
def test_tensors_that_a_kernel_could_not_use_are_refused(tensor, sentence, gpu, machine):
    with pytest.raises(ts_gpusim.LaunchError, match=f"^argument 0 .*{sentence}"):
        launch_add(tensor, 0, 0.0, 0, bytes(16))
    assert not machine.launches


def test_a_strided_tensor_is_the_memory_from_its_first_element_to_its_last(gpu, machine):
    spans = []
    gpu._execute = lambda _launch, memory: spans.extend(found.size for found in memory)
    launch_add(torch.zeros(4, 4)[:, ::2], 0, 0.0, 0, bytes(16))
    assert spans == [4 * (3 * 4 + 2 + 1)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"grid": (0, 1, 1)}, r"grid \(0, 1, 1\) is not between"),
        ({"block": (32, 1, 1)}, r"block is \(32, 1, 1\), and the kernel requires \(64, 1, 1\)"),
        ({"block": (1024, 2, 1)}, "has 2048 threads, and a block has at most 1024"),
        ({"cluster": (32, 1, 1)}, "has 32 blocks, and a cluster has 1 to 16"),
        ({"cluster": (4, 1, 1)}, r"grid \(2, 1, 1\) is no multiple of cluster \(4, 1, 1\): round"),
        ({"cluster": (-1, -1, 1)}, "a cluster has 1 to 16"),
        (
            {"shared_bytes": 232401},
            r"wants 232449 .*\(232401 dynamic, 48 its own\).*: take smaller",
        ),
        ({"shared_bytes": -1}, "it wants -1 bytes of dynamic shared memory, which is no number"),
        ({"grid": 2}, r"grid is 2, but it must be a tuple of three ints, such as \(4, 1, 1\)"),
        ({"grid": (2, 1)}, r"grid is \(2, 1\), but it must be a tuple of three ints"),
        ({"block": (64.0, 1, 1)}, r"block is \(64\.0, 1, 1\), but it must be a tuple of three"),
    ],
)
def test_launches_that_a_gpu_refuses_are_refused(options, sentence, gpu, machine):
    with pytest.raises(ts_gpusim.LaunchError, match=sentence):
        launch_add(0, 0, 0.0, 0, bytes(16), **options)
    assert not machine.launches


@pytest.mark.parametrize("target", ["sm_90a", "sm_120", "sm_103a"])
def test_ptx_for_another_target_is_refused(target, gpu, machine):
    ptx = ADD_PTX.replace("sm_90", target)
    with pytest.raises(
        ts_gpusim.LaunchError,
        match=f"is compiled for {target}, and the device is sm_100a: compile it for sm_100a, or",
    ):
        ts_gpusim.launch_ptx(ptx, "add", (1, 1, 1), (64, 1, 1), [0, 0, 0.0, 0, bytes(16)])
    assert not machine.launches


@pytest.mark.parametrize(
    ("declaration", "use", "sentence"),
    [
        (".extern .global .u32 there;", "ld.global.u32 %r1, [there];", "`there` is defined in no"),
        ("", "ld.global.u32 %r1, [there];", "`there` is no register, variable, label"),
        ("", "mov.u32 %r9, 1;", "`%r9` is no register, variable, label or special .*; declare it"),
        ("", "bra there;", "there"),
    ],
)
def test_a_symbol_that_is_nowhere_is_named_with_its_line(declaration, use, sentence, gpu):
    kernel = f".visible .entry k() {{ .reg .b32 %r<2>;\n{use}\nret; }}"
    ptx = f".version 8.8\n.target sm_90\n.address_size 64\n{declaration}\n{kernel}"
    with pytest.raises(ValueError, match=rf"PTX line \d: .*{sentence}"):
        ts_gpusim.launch_ptx(ptx, "k", (1, 1, 1), (32, 1, 1), [])


def test_a_kernel_that_the_ptx_lacks_is_named(gpu):
    with pytest.raises(ts_gpusim.LaunchError, match="no kernel named 'sub'; its kernels: add"):
        ts_gpusim.launch_ptx(ADD_PTX, "sub", (1, 1, 1), (64, 1, 1), [])


def test_neither_ptx_nor_a_file_is_refused(gpu):
    with pytest.raises(ValueError, match=r"'missing\.ptx' is neither PTX with an \.entry nor"):
        ts_gpusim.launch_ptx("missing.ptx", "add", (1, 1, 1), (64, 1, 1), [])


def test_a_cubin_is_refused(gpu, tmp_path):
    path = tmp_path / "add.cubin"
    path.write_bytes(b"\x7fELF\x02\xff")
    with pytest.raises(ts_gpusim.LaunchError, match=r"is no text: the software GPU runs PTX"):
        ts_gpusim.launch_ptx(path, "add", (1, 1, 1), (64, 1, 1), [])


def test_launch_ptx_needs_a_device():
    with pytest.raises(RuntimeError, match=r"use `with ts_gpusim\.device\(\.\.\.\):`"):
        launch_add(0, 0, 0.0, 0, bytes(16))


def test_a_registered_tensor_is_in_the_memory_of_every_launch(gpu, machine):
    gpu.register(torch.zeros(4), "table")
    launch_add(torch.zeros(1), 0, 0.0, 0, bytes(16))
    launch_add(0, 0, 0.0, 0, bytes(16))
    assert machine.names == [["table", "argument 0"], ["table"]]


def test_a_required_cluster_needs_no_mention_in_the_launch(gpu, machine):
    ptx = ADD_PTX.replace(".reqntid", ".explicitcluster\n.reqnctapercluster 2, 1, 1\n.reqntid")
    ts_gpusim.launch_ptx(ptx, "add", (2, 1, 1), (64, 1, 1), [0, 0, 0.0, 0, bytes(16)])
    assert machine.launches[0].cluster == (2, 1, 1)
