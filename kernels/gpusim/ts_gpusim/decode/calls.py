# SPDX-License-Identifier: MIT
"""call: arguments into the frame of the function, the way there, and what it returns out of it
(PTX ISA 9.7.12.5)."""

from __future__ import annotations

from collections.abc import Sequence

from ts_gpusim.decode.builder import Builder, Place
from ts_gpusim.decode.program_bodies import Bodies, call_target, returns_begin
from ts_gpusim.ptx.syntax import (
    Arguments,
    Instruction,
    Label,
    Operand,
    Parameter,
    Register,
    Sink,
    Symbol,
)

_ONE_OUTSIDE_SHARED = 1 << 8 | 4  # modifiers of an access: one element, not in shared memory


def call(builder: Builder, bodies: Bodies, instruction: Instruction) -> None:
    operands = instruction.operands
    target = call_target(instruction)
    first = operands.index(target)
    returned = _elements(operands[:first])
    given = _elements(operands[first + 1 :])
    callees = [target.name] if isinstance(target, Symbol) else bodies.by_address
    parameters, returns = _signature(builder, bodies, target, operands[-1])
    _demand_count(builder, "arguments", len(given), len(parameters))
    _demand_count(builder, "results", len(returned), len(returns))
    size = bodies.frames[builder.body.name].size
    frame = builder.frame
    below = max((bodies.frames[callee].size for callee in callees), default=0)
    builder.step("call.reserve", [frame, Place(builder.local_base, 0, 8)], modifiers=size + below)
    for value, parameter in zip(given, parameters, strict=True):
        _pass(builder, value, parameter, Place(frame.at, size + parameter.offset, 8))
    saved: list[Place] = []
    if bodies.may_return_to_itself(builder.body.name, callees):
        if instruction.guard is not None:
            raise builder.not_executed("a call that is guarded and recursive")
        saved = _registers(builder)
        builder.step("call.save", saved)
    if isinstance(target, Symbol):
        builder.step("call", [frame], modifiers=size, target=target.name)
    else:
        builder.step("call.indirect", [frame, builder.source(target, "b64")], modifiers=size)
    if saved:
        builder.step("call.restore", saved)
    begin = size + returns_begin(parameters)
    for result, parameter in zip(returned, returns, strict=True):
        _take(builder, result, parameter, Place(frame.at, begin + parameter.offset, 8))


def _elements(operands: Sequence[Operand]) -> tuple[Operand, ...]:
    return next((o.elements for o in operands if isinstance(o, Arguments)), ())


def _signature(
    builder: Builder, bodies: Bodies, target: Operand, last: Operand
) -> tuple[list[Parameter], list[Parameter]]:
    if isinstance(target, Symbol):
        function = bodies.module.functions[target.name]
        return function.parameters, function.returns
    prototype = builder.body.prototypes.get(last.name) if isinstance(last, Label) else None
    if prototype is None:
        raise builder.error("a call by an address needs a .callprototype as its last operand")
    return list(prototype.parameters), list(prototype.returns)


def _demand_count(builder: Builder, what: str, given: int, wanted: int) -> None:
    if given != wanted:
        raise builder.error(f"{given} {what} are given, and the function has {wanted}")


def _registers(builder: Builder) -> list[Place]:
    """Those of the caller, which the function may use when the caller is called again."""
    return [
        Place(builder.registers.register(register), builder.width(register.type))
        for register in builder.body.registers.values()
    ]


def _pass(builder: Builder, value: Operand, parameter: Parameter, to: Place) -> None:
    if isinstance(value, Symbol) and value.name in builder.frame_offsets:
        from_ = Place(to.at, builder.frame_offsets[value.name] + value.offset, 8)
        return builder.step("call.copy", [to, from_], modifiers=parameter.size)
    bits = f"b{8 * parameter.size}"
    handler = f"st.u{8 * parameter.size}.{8 * parameter.size}"
    builder.step(handler, [builder.source(value, bits), to], modifiers=_ONE_OUTSIDE_SHARED)


def _take(builder: Builder, result: Operand, parameter: Parameter, from_: Place) -> None:
    if isinstance(result, Sink):
        return
    if isinstance(result, Register):
        handler = f"ld.u{8 * parameter.size}.{8 * parameter.size}"
        place = builder.result(result, f"b{8 * parameter.size}")
        return builder.step(handler, [place, from_], modifiers=_ONE_OUTSIDE_SHARED)
    if not isinstance(result, Symbol) or result.name not in builder.frame_offsets:
        raise builder.error(f"{result} cannot take what a function returns")
    to = Place(from_.at, builder.frame_offsets[result.name] + result.offset, 8)
    builder.step("call.copy", [to, from_], modifiers=parameter.size)
