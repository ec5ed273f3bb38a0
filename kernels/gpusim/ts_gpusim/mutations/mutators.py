# SPDX-License-Identifier: MIT
"""A kernel with one synchronisation dropped or altered: all the ways in which it can be.

for mutation in mutations(kernel):
    mutant = mutation.apply(kernel)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ts_gpusim.ptx.printer import print_instruction
from ts_gpusim.ptx.syntax import Address, Immediate, Instruction, Kernel, Operand, Register

MBARRIER_BYTES = 8  # from one of a ring to the next
_SCRATCH = Register("%mutated", "b32")
_NAMED_BARRIERS = 16

Edits = dict[int, tuple[Instruction, ...]]  # by index: what stands in an instruction's place


@dataclass(frozen=True)
class Mutation:
    """`operation`: the kind of what is changed; `change`: how."""

    at: int  # index of the instruction in its kernel
    operation: str
    change: str
    edits: Edits

    def apply(self, kernel: Kernel) -> Kernel:
        instructions: list[Instruction] = []
        begins = []
        for index, instruction in enumerate(kernel.instructions):
            begins.append(len(instructions))
            instructions.extend(self.edits.get(index, (instruction,)))
        begins.append(len(instructions))
        return replace(
            kernel,
            instructions=instructions,
            labels={label: begins[index] for label, index in kernel.labels.items()},
            registers={**kernel.registers, _SCRATCH.name: _SCRATCH},
        )


Changes = Iterator[tuple[str, tuple[Instruction, ...]]]


def operation_of(instruction: Instruction) -> str | None:
    """None: it does not synchronise."""
    found = next((o for o in _OPERATIONS if instruction.name.startswith(o)), None)
    return None if found is None else _OPERATIONS[found][0]


def mutations(kernel: Kernel) -> Iterator[Mutation]:
    """In the order of the kernel's instructions."""
    barriers = _counts_of_named_barriers(kernel)
    for at, instruction in enumerate(kernel.instructions):
        name = next((o for o in _OPERATIONS if instruction.name.startswith(o)), None)
        if name is None:
            continue
        operation, changes = _OPERATIONS[name]
        for change, replacement in changes(instruction):
            yield Mutation(at, operation, change, {at: replacement})
        if operation == "named barrier":
            for change, replacement in _other_barrier(instruction, barriers):
                yield Mutation(at, operation, change, {at: replacement})
        if operation == "proxy fence":
            after = _next_release(kernel, at)
            if after is not None:
                moved = (kernel.instructions[after], instruction)
                yield Mutation(at, operation, "after the release", {at: (), after: moved})


# Instructions that are not in the kernel


def _written(instruction: Instruction) -> Instruction:
    return replace(instruction, text=print_instruction(instruction))


def _renamed(instruction: Instruction, name: str, *operands: Operand) -> Instruction:
    """At the same place, under the same guard."""
    opcode, *modifiers = name.split(".")
    return _written(
        replace(instruction, opcode=opcode, modifiers=tuple(modifiers), operands=operands)
    )


def _with_operand(instruction: Instruction, number: int, operand: Operand) -> Instruction:
    operands = list(instruction.operands)
    operands[number] = operand
    return _written(replace(instruction, operands=tuple(operands)))


def _computed(
    instruction: Instruction, number: int, operation: str, constant: int
) -> tuple[Instruction, ...]:
    """With `operand operation constant` in the place of an operand of 32 bits or less."""
    operand = instruction.operands[number]
    if isinstance(operand, Immediate):
        value = {"add": operand.value + constant, "xor": operand.value ^ constant}.get(operation)
        shifted = operand.value >> constant if operation == "shr" else value
        assert shifted is not None
        return (_with_operand(instruction, number, Immediate(shifted)),)
    assert isinstance(operand, Register)
    width = operand.type[1:]
    type_ = f"{'b' if operation == 'xor' else 'u'}{width}"
    scratch = replace(_SCRATCH, type=operand.type)
    compute = _renamed(instruction, f"{operation}.{type_}", scratch, operand, Immediate(constant))
    return compute, _with_operand(instruction, number, scratch)


def _moved(instruction: Instruction, number: int, offset: int) -> Instruction:
    """With another address."""
    address = instruction.operands[number]
    assert isinstance(address, Address)
    return _with_operand(instruction, number, replace(address, offset=address.offset + offset))


def _neighbours(instruction: Instruction, number: int) -> Changes:
    yield "next mbarrier", (_moved(instruction, number, MBARRIER_BYTES),)
    yield "previous mbarrier", (_moved(instruction, number, -MBARRIER_BYTES),)


# What can be wrong with each kind


def _wait(instruction: Instruction) -> Changes:
    zero = Immediate(0)
    yield "dropped", (_renamed(instruction, "setp.eq.u32", instruction.operands[0], zero, zero),)
    yield "other parity", _computed(instruction, 2, "xor", 1)
    yield from _neighbours(instruction, 1)


def _arrive(instruction: Instruction) -> Changes:
    yield "dropped", ()
    yield from _neighbours(instruction, 1)
    if len(instruction.operands) > 2:
        yield "count + 1", _computed(instruction, 2, "add", 1)
        yield "count - 1", _computed(instruction, 2, "add", -1)
    else:
        yield "twice", (instruction, instruction)


def _arrive_and_expect(instruction: Instruction) -> Changes:
    state, address, _ = instruction.operands
    name = instruction.name.replace(".expect_tx", "")
    yield "dropped", ()
    yield "without bytes", (_renamed(instruction, name, state, address),)
    yield "16 bytes more", _computed(instruction, 2, "add", 16)
    yield "16 bytes less", _computed(instruction, 2, "add", -16)
    yield "half the bytes", _computed(instruction, 2, "shr", 1)
    yield from _neighbours(instruction, 1)


def _init(instruction: Instruction) -> Changes:
    yield "count + 1", _computed(instruction, 1, "add", 1)
    yield "count - 1", _computed(instruction, 1, "add", -1)


def _commit(instruction: Instruction) -> Changes:
    yield "dropped", ()
    yield from _neighbours(instruction, 0)
    if len(instruction.operands) > 1:
        yield "mask without CTA 0", _masked(instruction, 0xFFFE)
        yield "mask without CTA 1", _masked(instruction, 0xFFFD)


def _masked(instruction: Instruction, mask: int) -> tuple[Instruction, ...]:
    register = instruction.operands[1]
    assert isinstance(register, Register)
    scratch = Register("%mutated16", "b16")
    compute = _renamed(instruction, "and.b16", scratch, register, Immediate(mask))
    return compute, _with_operand(instruction, 1, scratch)


def _copies_arrive(instruction: Instruction) -> Changes:
    yield "dropped", ()
    yield from _neighbours(instruction, 0)


def _dropped(instruction: Instruction) -> Changes:
    yield "dropped", ()


def _named_barrier(instruction: Instruction) -> Changes:
    yield "dropped", ()
    if len(instruction.operands) > 1:
        yield "one warp more", _computed(instruction, 1, "add", 32)
        yield "one warp less", _computed(instruction, 1, "add", -32)


def _counts_of_named_barriers(kernel: Kernel) -> dict[int, int]:
    found = {}
    for instruction in kernel.instructions:
        operands = instruction.operands
        if operation_of(instruction) == "named barrier" and isinstance(operands[0], Immediate):
            count = operands[1] if len(operands) > 1 else Immediate(0)
            found[operands[0].value] = count.value if isinstance(count, Immediate) else 0
    return found


def _other_barrier(instruction: Instruction, counts: dict[int, int]) -> Changes:
    """One that no other instruction uses, and each that others use."""
    own = instruction.operands[0]
    if not isinstance(own, Immediate):
        return
    for id_ in sorted(counts):
        if id_ != own.value:
            yield f"barrier {id_}", (_with_operand(instruction, 0, Immediate(id_)),)
    unused = next(id_ for id_ in range(1, _NAMED_BARRIERS) if id_ not in counts)
    yield "unused barrier", (_with_operand(instruction, 0, Immediate(unused)),)


def _proxy_fence(instruction: Instruction) -> Changes:
    yield "dropped", ()
    yield "of global memory", (_renamed(instruction, "fence.proxy.async.global"),)
    yield "not between proxies", (_renamed(instruction, "fence.acq_rel.cta"),)


def _next_release(kernel: Kernel, at: int) -> int | None:
    """The next instruction that tells others, if control gets there."""
    labels = set(kernel.labels.values())
    for index in range(at + 1, len(kernel.instructions)):
        if index in labels or kernel.instructions[index].opcode == "bra":
            return None
        name = kernel.instructions[index].name
        if name.startswith(("mbarrier.arrive", "bar.", "barrier.", "cp.async.bulk")):
            return index
    return None


def _wait_group(instruction: Instruction) -> Changes:
    yield "dropped", ()
    yield "one group more", _computed(instruction, 0, "add", 1)


def _tensor_wait(instruction: Instruction) -> Changes:
    yield "dropped", ()
    other = {"wait::ld": "wait::st", "wait::st": "wait::ld"}[instruction.modifiers[0]]
    yield f"{other} instead", (_renamed(instruction, f"tcgen05.{other}.sync.aligned"),)


# By the beginning of the instruction's name; the first that fits.
_OPERATIONS: dict[str, tuple[str, Callable[[Instruction], Changes]]] = {
    "mbarrier.init": ("mbarrier init", _init),
    "mbarrier.try_wait": ("mbarrier wait", _wait),
    "mbarrier.test_wait": ("mbarrier wait", _wait),
    "mbarrier.arrive.expect_tx": ("expect_tx", _arrive_and_expect),
    "mbarrier.arrive": ("mbarrier arrive", _arrive),
    "cp.async.mbarrier.arrive": ("mbarrier arrive of copies", _copies_arrive),
    "tcgen05.commit": ("commit", _commit),
    "barrier.cluster.arrive": ("cluster barrier", _dropped),
    "barrier.cluster.wait": ("cluster barrier", _dropped),
    "bar.sync": ("named barrier", _named_barrier),
    "bar.arrive": ("named barrier", _named_barrier),
    "barrier.sync": ("named barrier", _named_barrier),
    "barrier.arrive": ("named barrier", _named_barrier),
    "fence.proxy.async": ("proxy fence", _proxy_fence),
    "fence.mbarrier_init": ("mbarrier init fence", _dropped),
    "tcgen05.wait": ("tcgen05.wait", _tensor_wait),
    "tcgen05.fence": ("tcgen05.fence", _dropped),
    "cp.async.bulk.commit_group": ("commit_group", _dropped),
    "cp.async.bulk.wait_group": ("wait_group", _wait_group),
    "cp.async.commit_group": ("commit_group", _dropped),
    "cp.async.wait_group": ("wait_group", _wait_group),
    "cp.async.wait_all": ("wait_group", _dropped),
    "wgmma.fence": ("wgmma.fence", _dropped),
    "wgmma.commit_group": ("commit_group", _dropped),
    "wgmma.wait_group": ("wait_group", _wait_group),
}
