# SPDX-License-Identifier: MIT
"""Asynchronous copies on the software GPU against numpy: of bytes, of tensors, in clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import gpusim_hopper_gemm
import numpy as np
import pytest
import torch
import ts_gpusim
from gpusim_tensor_map import swizzled, tensor_map
from ts_gpusim.faults import Fault
from ts_gpusim.machine import Machine

BYTES = {"u8": 1, "u16": 2, "u32": 4, "s32": 4, "u64": 8, "s64": 8, "f16": 2, "f32": 4,
         "f32.ftz": 4, "f64": 8, "bf16": 2, "tf32": 4, "tf32.ftz": 4}  # fmt: skip
HEADER = ".version 8.8\n.target sm_100a\n.address_size 64\n"
THREADS = 32


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    with ts_gpusim.device("sm_100a", execute=machine):
        yield machine


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


# Pieces of kernels of one warp. %first: thread 0; `box`: shared memory; %bar: its mbarrier.

REGISTERS = """
    .reg .pred %first, %done, %more, %leads, %named;
    .reg .b16 %mask;
    .reg .b32 %tid, %at, %bar, %box, %i, %value, %rank, %bit, %there, %far;
    .reg .b64 %out, %in, %map, %address;
    .reg .b32 %c<5>;
    mov.u32 %tid, %tid.x;
    mov.u32 %rank, %cluster_ctarank;
    setp.eq.u32 %first, %tid, 0;
    mov.u32 %box, box;
    mov.u32 %bar, bar;
"""
INIT = """
    @%first mbarrier.init.shared.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
"""
WAIT = """
WAIT:
    mbarrier.try_wait.parity.shared.b64 %done, [%bar], 0;
    @!%done bra WAIT;
"""
LEAVE = """
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    ret;
}
"""


def for_each_word(label: str, size: int, body: str) -> str:
    """%at: the offset of a thread's word, %i its shared address, %address its offset as b64."""
    return f"""
    shl.b32 %at, %tid, 2;
{label}:
    setp.lt.u32 %more, %at, {size};
    add.u32 %i, %box, %at;
    cvt.u64.u32 %address, %at;
{body}
    add.u32 %at, %at, {4 * THREADS};
    setp.lt.u32 %more, %at, {size};
    @%more bra {label};
"""


def box_to_out(size: int) -> str:
    return for_each_word(
        "OUT",
        size,
        """
    @%more ld.shared.u32 %value, [%i];
    add.u64 %address, %address, %out;
    @%more st.global.u32 [%address], %value;
""",
    )


def in_to_box(size: int) -> str:
    loop = for_each_word(
        "IN",
        size,
        """
    add.u64 %address, %address, %in;
    @%more ld.global.u32 %value, [%address];
    @%more st.shared.u32 [%i], %value;
""",
    )
    return loop + "    fence.proxy.async.shared::cta;\n    bar.warp.sync 0xffffffff;\n"


def kernel(parameters: str, size: int, code: str) -> str:
    """Each CTA has its own part, of `size` bytes, of `in` and `out`."""
    own = ""
    for name in ("in", "out"):
        if f".u64 {name}" in parameters:
            own += f"    ld.param.u64 %{name}, [{name}];\n"
            own += f"    mad.wide.u32 %{name}, %rank, {size}, %{name};\n"
    return f"""{HEADER}
.visible .entry kernel({parameters}) {{
    .shared .align 1024 .b8 box[{size}];
    .shared .align 8 .b64 bar;
{REGISTERS}{own}{INIT}{code}{LEAVE}"""


def launch(ptx: str, arguments: list[object], ctas: int = 1) -> None:
    shape = (ctas, 1, 1)
    ts_gpusim.launch_ptx(ptx, "kernel", shape, (THREADS, 1, 1), arguments, cluster=shape)


# Tensors

MAP = ".param .align 64 .b8 map[128], .param .align 4 .b8 at[20], .param .u64 tensor"


def map_and_coordinates(rank: int) -> tuple[str, str]:
    """Code that loads them, and the operand."""
    loads = "    mov.b64 %map, map;\n    cvta.param.u64 %map, %map;\n"
    for i in range(rank):
        loads += f"    ld.param.u32 %c{i}, [at+{4 * i}];\n"
    return loads, f"[%map, {{{', '.join(f'%c{i}' for i in range(rank))}}}]"


def tensor_load(rank: int, size: int, mask: int | None = None) -> str:
    """`mask`: CTAs that the first one brings the box to; without one, it is for itself."""
    loads, origin = map_and_coordinates(rank)
    copy = f"cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
    operands = f"[%box], {origin}, [%bar]"
    if mask is not None:
        copy += ".multicast::cluster"
        operands += ", %mask"
    ctas = 1 if mask is None else mask
    return kernel(
        f"{MAP}, .param .u64 out",
        size,
        f"""{loads}
    mov.u16 %mask, {ctas};
    shr.u32 %bit, {ctas}, %rank;
    and.b32 %bit, %bit, 1;
    setp.eq.u32 %named, %bit, 1;
    setp.eq.and.u32 %leads, %rank, 0, %first;
    setp.eq.and.u32 %done, %bit, 1, %first;
    @%done mbarrier.arrive.expect_tx.shared.b64 _, [%bar], {size};
    @%leads {copy} {operands};
    @!%named bra END;
{WAIT}{box_to_out(size)}
END:
""",
    )


def tensor_store(rank: int, size: int, reduction: str = "") -> str:
    loads, target = map_and_coordinates(rank)
    copy = f"cp.async.bulk.tensor.{rank}d.global.shared::cta.tile.bulk_group"
    if reduction:
        copy = f"cp.reduce.async.bulk.tensor.{rank}d.global.shared::cta.{reduction}.tile.bulk_group"
    return kernel(
        f"{MAP}, .param .u64 in",
        size,
        f"""{loads}{in_to_box(size)}
    @%first {copy} {target}, [%box];
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
""",
    )


def map_arguments(
    tensor: np.ndarray, type_: str, box: tuple[int, ...], swizzle: int, at: tuple[int, ...]
) -> list[object]:
    """`at`: where the box begins. The tensor itself is given for its memory."""
    innermost_first = np.array([*at[::-1], *[0] * (5 - len(at))], np.int32)
    return [tensor_map(tensor, type_, box, swizzle), innermost_first.tobytes(), tensor]


def cut(tensor: np.ndarray, box: tuple[int, ...], at: tuple[int, ...]) -> np.ndarray:
    """The box of `tensor` that begins `at`; zero outside."""
    content = np.zeros(box, tensor.dtype)
    for index in np.ndindex(*box):
        place = tuple(a + i for a, i in zip(at, index, strict=True))
        if all(0 <= p < size for p, size in zip(place, tensor.shape, strict=True)):
            content[index] = tensor[place]
    return content


def paste(
    tensor: np.ndarray,
    at: tuple[int, ...],
    values: np.ndarray,
    combine: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> None:
    """What of `values`, placed `at`, is inside of `tensor` is combined with it."""
    inside, of_values = [], []
    for a, size, box in zip(at, tensor.shape, values.shape, strict=True):
        first, last = max(a, 0), max(min(a + box, size), max(a, 0))
        inside.append(slice(first, last))
        of_values.append(slice(first - a, last - a))
    with np.errstate(over="ignore"):
        tensor[tuple(inside)] = combine(tensor[tuple(inside)], values[tuple(of_values)])


# Of the box along each axis, and of the tensor; the last axis follows from the swizzle.
OUTER_BOX = (2, 2, 3, 5)
OUTER_SIZES = (3, 2, 4, 7)


def bits_of(type_: str) -> np.dtype:
    return np.dtype(f"u{BYTES[type_]}")


def random_case(
    random: np.random.Generator, type_: str, rank: int, swizzle: int
) -> tuple[np.ndarray, tuple[int, ...]]:
    """A tensor of random bits in a larger one, so that its strides have gaps; and a box."""
    element = BYTES[type_]
    inner = max(swizzle, 32) // element
    outer = OUTER_SIZES[4 - (rank - 1) :] if rank > 1 else ()
    stored = random.integers(0, 256, (*outer, 4 * inner * element), np.uint8).view(bits_of(type_))
    tensor = stored[..., : 2 * inner + 3]
    return tensor, (*(OUTER_BOX[4 - (rank - 1) :] if rank > 1 else ()), inner)


def corners(tensor: np.ndarray, box: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Inside, before the first elements, past the last ones, and wholly outside."""
    inside = tuple(min(1, size - b) for size, b in zip(tensor.shape, box, strict=True))
    past = tuple(size - 1 for size in tensor.shape)
    return [inside, tuple(-1 for _ in box), past, (*past[:-1], -box[-1])]


@pytest.mark.parametrize("swizzle", [16, 32, 64, 128])
@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("type_", BYTES)
def test_a_tensor_load_brings_a_box_with_zeros_outside(type_, rank, swizzle, machine, random):
    tensor, box = random_case(random, type_, rank, swizzle)
    size = int(np.prod(box)) * BYTES[type_]
    for at in corners(tensor, box):
        out = np.zeros(size, np.uint8)
        launch(tensor_load(rank, size), [*map_arguments(tensor, type_, box, swizzle, at), out])
        expected = swizzled(cut(tensor, box, at).reshape(-1).view(np.uint8), swizzle)
        np.testing.assert_array_equal(out, expected, err_msg=f"box at {at}")


@pytest.mark.parametrize("swizzle", [16, 32, 64, 128])
@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("type_", ["u8", "bf16", "s32", "f64"])
def test_a_tensor_store_writes_what_is_inside(type_, rank, swizzle, machine, random):
    tensor, box = random_case(random, type_, rank, swizzle)
    content = random.integers(0, 256, int(np.prod(box)) * BYTES[type_], np.uint8)
    values = content.view(bits_of(type_)).reshape(box)
    for at in corners(tensor, box):
        expected = tensor.copy()
        paste(expected, at, values, lambda old, new: new)
        launch(
            tensor_store(rank, content.size),
            [*map_arguments(tensor, type_, box, swizzle, at), swizzled(content, swizzle)],
        )
        np.testing.assert_array_equal(tensor, expected, err_msg=f"box at {at}")


def test_maps_are_those_that_the_dsl_encodes():
    machine = Machine()
    a, b, c = (
        torch.zeros(128, 192).bfloat16(),
        torch.zeros(64, 192).bfloat16(),
        torch.zeros(128, 64),
    )
    with ts_gpusim.device("sm_90a", execute=machine):
        gpusim_hopper_gemm.compiled(b_mn_major=False)(a, b, c)
    maps = [bytes_ for bytes_ in machine.runs[0].launch.parameters if len(bytes_) == 128]
    for found, matrix in zip(maps, (a, b), strict=True):
        ours = tensor_map(matrix.view(torch.int16).numpy().view(np.uint16), "bf16", (64, 64), 128)
        found, ours = (np.frombuffer(map_, np.uint32).copy() for map_ in (found, ours))
        # What we leave at 0: hints for caches, and strides between elements, in words 2 and 12.
        found[2] &= 0x67FF
        for axis in (2, 3, 4):
            assert found[8 + axis] == ours[8 + axis]
        np.testing.assert_array_equal(found[:14], ours[:14])
        assert found[14] & 0xFF == ours[14] & 0xFF


# Reductions

SIGNED = {"u32": np.uint32, "s32": np.int32, "u64": np.uint64, "s64": np.int64,
          "f16": np.float16, "f32": np.float32, "f64": np.float64}  # fmt: skip
OPERATIONS = {
    "add": lambda old, new: old + new,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "inc": lambda old, new: np.where(old >= new, 0, old + 1).astype(old.dtype),
    "dec": lambda old, new: np.where((old == 0) | (old > new), new, old - 1).astype(old.dtype),
}
TENSOR_REDUCTIONS = [
    *product(["add", "min", "max"], SIGNED),
    *product(["and", "or", "xor", "inc", "dec"], ["u32"]),
    *product(["and", "or", "xor"], ["u64"]),
]


def numbers(random: np.random.Generator, type_: str, shape: tuple[int, ...]) -> np.ndarray:
    dtype = np.dtype(SIGNED[type_])
    if dtype.kind == "f":
        return (random.standard_normal(shape) * 100).astype(dtype)
    bounds = np.iinfo(dtype)
    few = random.integers(0, 4, shape).astype(dtype)  # so that inc and dec wrap around
    return np.where(
        random.random(shape) < 0.5, few, random.integers(bounds.min, bounds.max, shape, dtype)
    )


@pytest.mark.parametrize(("operation", "type_"), TENSOR_REDUCTIONS)
def test_a_tensor_reduction_combines_what_is_inside(operation, type_, machine, random):
    tensor, values = numbers(random, type_, (6, 24)), numbers(random, type_, (4, 16))
    for at in ((1, 2), (-2, -3), (4, 20)):
        expected = tensor.copy()
        paste(expected, at, values, OPERATIONS[operation])
        launch(
            tensor_store(2, values.nbytes, operation),
            [*map_arguments(tensor, type_, values.shape, 16, at), values],
        )
        np.testing.assert_array_equal(tensor, expected, err_msg=f"box at {at}")


def bulk_reduction(operation: str, type_: str, size: int) -> str:
    noftz = "noftz." if type_ in ("f16", "bf16") and operation == "add" else ""
    return kernel(
        ".param .u64 in, .param .u64 out",
        size,
        f"""{in_to_box(size)}
    @%first cp.reduce.async.bulk.global.shared::cta.bulk_group.{operation}.{noftz}{type_}
        [%out], [%box], {size};
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
""",
    )


BULK_REDUCTIONS = [
    *[("add", type_) for type_ in ("u32", "s32", "u64", "f16", "f32", "f64")],
    *product(["min", "max"], ["u32", "s32", "u64", "s64", "f16"]),
    *product(["and", "or", "xor"], ["b32", "b64"]),
    ("inc", "u32"),
    ("dec", "u32"),
]


@pytest.mark.parametrize(("operation", "type_"), BULK_REDUCTIONS)
def test_a_bulk_reduction_combines_global_memory(operation, type_, machine, random):
    number = type_.replace("b", "u")
    values, out = numbers(random, number, (64,)), numbers(random, number, (64,))
    expected = OPERATIONS[operation](out, values)
    launch(bulk_reduction(operation, type_, values.nbytes), [values, out])
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("operation", ["add", "min", "max"])
def test_a_bulk_reduction_of_bfloat16_rounds_once(operation, machine, random):
    values = torch.from_numpy(random.standard_normal(64)).bfloat16()
    out = torch.from_numpy(random.standard_normal(64)).bfloat16()
    torch_operation = {"add": torch.add, "min": torch.minimum, "max": torch.maximum}[operation]
    expected = torch_operation(out, values)
    launch(bulk_reduction(operation, "bf16", 128), [values, out])
    assert torch.equal(out, expected)


# Bytes


@pytest.mark.parametrize("size", [16, 48, 4096])
def test_bulk_copies_bring_bytes_in_and_out(size, machine, random):
    code = f"""
    @%first mbarrier.arrive.expect_tx.shared.b64 _, [%bar], {size};
    @%first cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
        [%box], [%in], {size}, [%bar];
{WAIT}
    @%first cp.async.bulk.global.shared::cta.bulk_group [%out], [%box], {size};
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
"""
    given, out = random.integers(0, 256, size, np.uint8), np.zeros(size, np.uint8)
    launch(kernel(".param .u64 in, .param .u64 out", size, code), [given, out])
    np.testing.assert_array_equal(out, given)


@pytest.mark.parametrize(
    ("size", "offset", "kind"),
    [(40, 0, "misaligned"), (64, 8, "misaligned"), (64, 16, "out-of-bounds")],
)
def test_a_bulk_copy_that_does_not_fit_is_a_fault(size, offset, kind, machine):
    code = f"""
    @%first mbarrier.arrive.expect_tx.shared.b64 _, [%bar], {size};
    @%first cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
        [%box], [%in+{offset}], {size}, [%bar];
{WAIT}"""
    with pytest.raises(Fault) as fault:
        launch(kernel(".param .u64 in", 64, code), [np.zeros(64, np.uint8)])
    assert fault.value.kind == kind


@pytest.mark.parametrize("size", [4, 8, 16])
@pytest.mark.parametrize("copied", [None, 0, 3, 4])
def test_cp_async_fills_the_rest_with_zeros(size, copied, machine, random):
    cache = "cg" if size == 16 else "ca"
    source = "" if copied is None else f", {copied}"
    code = f"""
    mad.wide.u32 %address, %tid, {size}, %in;
    mad.lo.u32 %i, %tid, {size}, %box;
    cp.async.{cache}.shared.global [%i], [%address], {size}{source};
    cp.async.commit_group;
    cp.async.wait_group 0;
    bar.warp.sync 0xffffffff;
{box_to_out(size * THREADS)}"""
    given = random.integers(1, 256, (THREADS, size), np.uint8)
    out = np.full_like(given, 0xFF)
    launch(kernel(".param .u64 in, .param .u64 out", given.size, code), [given, out])
    expected = given.copy()
    expected[:, size if copied is None else copied :] = 0
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("seed", range(8))
def test_wait_group_leaves_only_the_newest_groups_under_way(seed, machine, random):
    """The older of two stores has been done: what it wrote is overwritten in shared memory."""
    machine.seed = seed
    code = f"""{in_to_box(64)}
    @%first cp.async.bulk.global.shared::cta.bulk_group [%out], [%box], 32;
    cp.async.bulk.commit_group;
    @%first cp.async.bulk.global.shared::cta.bulk_group [%out+32], [%box+32], 32;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group.read 1;
    mov.u32 %value, 0;
    @%first st.shared.u32 [%box], %value;
    cp.async.bulk.wait_group 0;
"""
    given, out = random.integers(1, 256, 64, np.uint8), np.zeros(64, np.uint8)
    launch(kernel(".param .u64 in, .param .u64 out", 64, code), [given, out])
    machine.seed = 0
    np.testing.assert_array_equal(out, given)


# Clusters


@pytest.mark.parametrize("mask", [0b1, 0b1111, 0b1010])
@pytest.mark.parametrize("seed", range(4))
def test_a_multicast_brings_the_box_to_the_ctas_of_its_mask(mask, seed, machine, random):
    machine.seed = seed
    tensor = random.integers(0, 2**16, (16, 64), np.uint16)
    out = np.zeros((4, 8, 64), np.uint16)
    arguments = [*map_arguments(tensor, "u16", (8, 64), 128, (3, 0)), out]
    launch(tensor_load(2, 1024, mask), arguments, ctas=4)
    machine.seed = 0
    expected = swizzled(tensor[3:11].reshape(-1).view(np.uint8), 128).view(np.uint16)
    for cta in range(4):
        np.testing.assert_array_equal(out[cta].reshape(-1), expected * (mask >> cta & 1))


@pytest.mark.parametrize("seed", range(4))
def test_a_bulk_multicast_brings_bytes_to_every_cta(seed, machine, random):
    machine.seed = seed
    code = f"""
    mov.u16 %mask, 3;
    setp.eq.and.u32 %leads, %rank, 0, %first;
    @%first mbarrier.arrive.expect_tx.shared.b64 _, [%bar], 256;
    @%leads cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
        [%box], [%in], 256, [%bar], %mask;
{WAIT}{box_to_out(256)}"""
    given, out = random.integers(0, 256, (2, 256), np.uint8), np.zeros((2, 256), np.uint8)
    launch(kernel(".param .u64 in, .param .u64 out", 256, code), [given, out], ctas=2)
    machine.seed = 0
    np.testing.assert_array_equal(out, [given[0], given[0]])


TO_THE_NEXT = """
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    add.u32 %there, %rank, 1;
    and.b32 %there, %there, 3;
    mapa.shared::cluster.u32 %far, %box, %there;
    mapa.shared::cluster.u32 %there, %bar, %there;
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_cta_copies_to_the_shared_memory_of_the_next(seed, machine, random):
    machine.seed = seed
    code = f"""{in_to_box(512)}{TO_THE_NEXT}
    @%first mbarrier.arrive.expect_tx.shared.b64 _, [%bar], 256;
    @%first cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes
        [%far+256], [%box], 256, [%there];
{WAIT}{box_to_out(512)}"""
    given, out = random.integers(0, 256, (4, 512), np.uint8), np.zeros((4, 512), np.uint8)
    launch(kernel(".param .u64 in, .param .u64 out", 512, code), [given, out], ctas=4)
    machine.seed = 0
    expected = given.copy()
    for cta in range(4):
        expected[(cta + 1) % 4, 256:] = given[cta, :256]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("operation", "type_"),
    [
        *product(["add", "min", "max"], ["u32", "s32"]),
        *product(["and", "or", "xor"], ["b32"]),
        *product(["inc", "dec"], ["u32"]),
        ("add", "u64"),
    ],
)
def test_a_cta_reduces_in_the_shared_memory_of_the_next(operation, type_, machine, random):
    code = f"""{in_to_box(512)}
{TO_THE_NEXT}
    @%first mbarrier.arrive.expect_tx.shared.b64 _, [%bar], 256;
    @%first cp.reduce.async.bulk.shared::cluster.shared::cta
        .mbarrier::complete_tx::bytes.{operation}.{type_}
        [%far+256], [%box], 256, [%there];
{WAIT}{box_to_out(512)}"""
    number = type_.replace("b", "u")
    given = numbers(random, number, (4, 512 // BYTES[number]))
    out = np.zeros_like(given)
    launch(kernel(".param .u64 in, .param .u64 out", 512, code), [given, out], ctas=4)
    expected, half = given.copy(), given.shape[1] // 2
    for cta in range(4):
        far = (cta + 1) % 4
        expected[far, half:] = OPERATIONS[operation](given[far, half:], given[cta, :half])
    np.testing.assert_array_equal(out, expected)


# Four rows of a matrix, wherever they are (tile::gather4, tile::scatter4)


def four_rows(size: int, copy: str, loads: bool) -> str:
    prepare = map_and_coordinates(5)[0]
    if loads:
        code = f"""{prepare}
    @%first mbarrier.arrive.expect_tx.shared.b64 _, [%bar], {size};
    @%first {copy} [%box], [%map, {{%c0, %c1, %c2, %c3, %c4}}], [%bar];
{WAIT}{box_to_out(size)}"""
        return kernel(f"{MAP}, .param .u64 out", size, code)
    code = f"""{prepare}{in_to_box(size)}
    @%first {copy} [%map, {{%c0, %c1, %c2, %c3, %c4}}], [%box];
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
"""
    return kernel(f"{MAP}, .param .u64 in", size, code)


GATHER = "cp.async.bulk.tensor.2d.shared::cta.global.tile::gather4.mbarrier::complete_tx::bytes"
SCATTER = "cp.async.bulk.tensor.2d.global.shared::cta.tile::scatter4.bulk_group"


@pytest.mark.parametrize("swizzle", [16, 32, 64, 128])
def test_a_gather_brings_four_rows_with_zeros_outside(swizzle, machine, random):
    columns = max(swizzle, 32) // 2
    tensor = random.integers(0, 1 << 16, (20, 3 * columns), np.uint16)
    size = 4 * 2 * columns
    for column, rows in [(0, (3, 0, 19, 7)), (columns, (5, 5, -1, 20)), (-4, (1, 2, 3, 4))]:
        out = np.zeros(size, np.uint8)
        at = np.array([column, *rows], np.int32).tobytes()
        map_ = tensor_map(tensor, "u16", (1, columns), swizzle)
        launch(four_rows(size, GATHER, loads=True), [map_, at, tensor, out])
        expected = np.concatenate([cut(tensor, (1, columns), (row, column)) for row in rows])
        np.testing.assert_array_equal(out, swizzled(expected.reshape(-1).view("u1"), swizzle))


def test_a_scatter_puts_four_rows_and_leaves_out_what_is_outside(machine, random):
    tensor = random.integers(0, 1 << 16, (20, 48), np.uint16)
    rows, column, columns = (3, 25, 0, 19), 40, 16
    values = random.integers(0, 1 << 16, (4, columns), np.uint16)
    expected = tensor.copy()
    for row, value in zip(rows, values, strict=True):
        paste(expected, (row, column), value[None], lambda old, new: new)
    at = np.array([column, *rows], np.int32).tobytes()
    map_ = tensor_map(tensor, "u16", (1, columns), 16)
    launch(four_rows(values.nbytes, SCATTER, loads=False), [map_, at, tensor, values.view("u1")])
    np.testing.assert_array_equal(tensor, expected)


def test_rows_are_gathered_with_a_map_whose_boxes_are_rows(machine, random):
    tensor = random.integers(0, 1 << 16, (20, 48), np.uint16)
    map_, at = tensor_map(tensor, "u16", (2, 16), 16), np.zeros(5, np.int32).tobytes()
    with pytest.raises(Fault, match="2 dimensions with boxes of 2 rows; it must have 2 and 1"):
        launch(four_rows(128, GATHER, loads=True), [map_, at, tensor, np.zeros(128, np.uint8)])


@pytest.mark.parametrize("mask", [0xFFFF, 0, 0x00FF, 0x8421])
def test_a_masked_bulk_store_writes_the_bytes_of_its_mask(mask, machine, random):
    size = 256
    values = random.integers(0, 256, size, np.uint8)
    target = random.integers(0, 256, size, np.uint8)
    chosen = (mask >> np.arange(size) % 16 & 1).astype(bool)
    expected = np.where(chosen, values, target)
    code = f"""{in_to_box(size)}
    ld.param.u64 %map, [out];
    mov.u16 %mask, {mask};
    @%first cp.async.bulk.global.shared::cta.bulk_group.cp_mask [%map], [%box], {size}, %mask;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
"""
    ptx = kernel(".param .u64 in, .param .u64 out", size, code)
    launch(ptx, [values, target])
    np.testing.assert_array_equal(target, expected)
