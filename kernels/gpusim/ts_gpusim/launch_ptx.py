# SPDX-License-Identifier: MIT
"""Launch a kernel of a PTX module from Python, whoever compiled it (nvcc, Triton)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ts_gpusim.device import active_device
from ts_gpusim.dlpack import is_tensor, require_host, view_of
from ts_gpusim.faults import LaunchError
from ts_gpusim.launch import Dim3, Launch, LaunchAttributes
from ts_gpusim.memory import MemoryMap
from ts_gpusim.modules import kernel_of
from ts_gpusim.ptx.syntax import Parameter


def launch_ptx(
    ptx: str | Path,
    kernel: str,
    grid: Dim3,
    block: Dim3,
    arguments: Sequence[object],
    cluster: Dim3 = (1, 1, 1),
    shared_bytes: int = 0,
    attributes: LaunchAttributes | None = None,
) -> None:
    """Run it on the active device; results are in place when this returns.

    `ptx`: the module's text, or the path of a file. `arguments`: one for each parameter of the
    kernel: a host tensor (its address), an int, a float, or the parameter's bytes (a struct, a
    tensor map). `shared_bytes`: dynamic ones. Raise LaunchError for arguments that do not fit and
    for a launch that a GPU would refuse, PtxError for PTX that is wrong or not executed.
    """
    gpu = active_device()
    text = _text_of(ptx)
    parameters = kernel_of(text, kernel).parameters
    if len(arguments) != len(parameters):
        names = ", ".join(parameter.name for parameter in parameters)
        raise LaunchError(
            f"kernel {kernel} has {len(parameters)} parameters ({names}), "
            f"but {len(arguments)} arguments were given"
        )
    memory = MemoryMap()
    packed = []
    for index, (argument, parameter) in enumerate(zip(arguments, parameters, strict=True)):
        if is_tensor(argument) and not isinstance(argument, np.generic):
            require_host(argument, f"argument {index}")
            memory.add(argument, f"argument {index}")
        packed.append(_pack(argument, parameter, f"argument {index}"))
    launch = Launch(
        kernel=kernel,
        ptx=text,
        grid=grid,
        block=block,
        cluster=cluster,
        shared_bytes=shared_bytes,
        attributes=attributes or LaunchAttributes(),
        parameters=packed,
    )
    gpu.launch(launch, memory)


def _text_of(ptx: str | Path) -> str:
    if isinstance(ptx, str) and ".entry" in ptx:
        return ptx.rstrip("\0")
    path = Path(ptx)
    if len(str(ptx)) > 4096 or not path.is_file():
        raise LaunchError(f"{str(ptx)[:80]!r} is neither PTX with an .entry nor a file")
    try:
        return path.read_text().rstrip("\0")
    except UnicodeDecodeError:
        raise LaunchError(
            f"{path} is no text: the software GPU runs PTX (nvcc --ptx), no cubin"
        ) from None


_FLOAT_FORMATS = {2: "<e", 4: "<f", 8: "<d"}  # by size in bytes


def _pack(argument: Any, parameter: Parameter, name: str) -> bytes:
    """The parameter's bytes; untyped ones (.b32) take what has their size."""
    wanted = f"parameter {parameter.name} is .{parameter.type}"
    if parameter.size != _size_of_element(parameter):
        wanted += f"[{parameter.size // _size_of_element(parameter)}]"
    if isinstance(argument, (bytes, bytearray, np.generic)):
        packed = argument.tobytes() if isinstance(argument, np.generic) else bytes(argument)
        if len(packed) != parameter.size:
            raise LaunchError(
                f"{name} has {len(packed)} bytes, but {wanted}, {parameter.size} bytes"
            )
        return packed
    scalar = parameter.size == _size_of_element(parameter)
    if is_tensor(argument):
        if not scalar or parameter.type not in ("u64", "b64", "s64"):
            raise LaunchError(f"{name} is a tensor, whose address has 8 bytes, but {wanted}")
        return struct.pack("<Q", view_of(argument).address)
    if isinstance(argument, int):
        if not scalar or parameter.type.startswith("f"):
            raise LaunchError(f"{name} is an int, but {wanted}")
        bits = 8 * parameter.size
        if not -(1 << (bits - 1)) <= argument < 1 << bits:
            raise LaunchError(f"{name} is {argument}, but {wanted}: it does not fit")
        return (argument % (1 << bits)).to_bytes(parameter.size, "little")
    if isinstance(argument, float):
        if not scalar or parameter.type[0] not in "fb" or parameter.size not in _FLOAT_FORMATS:
            raise LaunchError(f"{name} is a float, but {wanted}")
        return struct.pack(_FLOAT_FORMATS[parameter.size], argument)
    raise LaunchError(
        f"{name} is of type {type(argument).__name__}: give a host tensor, an int, a float or bytes"
    )


def _size_of_element(parameter: Parameter) -> int:
    return int(parameter.type.lstrip("usbf")) // 8
