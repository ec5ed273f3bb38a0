# SPDX-License-Identifier: MIT
"""CuTe DSL (nvidia-cutlass-dsl 4.8) made to compile for, and call, the software GPU.

The DSL stays what it is: its host code is compiled and run, but linked against our CUDA runtime
(`shared_libs`, CUTE_DSL_LIBS). Around it, patches of its Python classes

- choose the architecture and keep the PTX of each compiled function (`__ptx__`): kernel names are
  not unique, two configurations of one kernel share theirs;
- bind that PTX and the tensors of a call to the launches that the call makes;
- let host tensors pass where tvm-ffi's host code insists on a CUDA device.

Settings are part of the DSL's cache key, so functions compiled for a real GPU stay as they are.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ts_gpusim.capture.host_calls import HostCalls
from ts_gpusim.capture.patches import Patches
from ts_gpusim.capture.runtime import library_path
from ts_gpusim.dlpack import OnDevice, is_tensor, require_host, view_of, view_of_capsule
from ts_gpusim.properties import DeviceProperties

# What we leave on the DSL's own objects; they outlive a device.
_CAPTURED = "_ts_gpusim_captured"  # on a compiled function: linked against our runtime
_PTX = "_ts_gpusim_ptx"  # on a compiled function: "" where it has host code only
_FUNCTION = "_ts_gpusim_function"  # on an executor: its compiled function's name and PTX
_SOURCE = "_ts_gpusim_source"  # on a tensor of the DSL: the host tensor that it wraps


def patch_cute_dsl(
    patches: Patches, device: DeviceProperties, calls: HostCalls, dump_folder: Path
) -> None:
    """`dump_folder`: the DSL writes PTX there before it reads it back."""
    _patch_settings(patches, device, dump_folder)
    _patch_compilation(patches)
    _patch_plain_calls(patches, calls)
    _patch_tvm_ffi_calls(patches, calls)
    _patch_tensors(patches, calls)


def _patch_settings(patches: Patches, device: DeviceProperties, dump_folder: Path) -> None:
    from cutlass.base_dsl.compiler import CompileOptions, GenerateLineInfo, KeepPTX
    from cutlass.cutlass_dsl.cutlass import CuTeDSL, CuteExperimentalDSL

    library = str(library_path())
    patches.set_environment("CUTE_DSL_LIBS", library)  # tvm-ffi's host code reads this one
    for dsl in (CuTeDSL._get_dsl(), CuteExperimentalDSL._get_dsl()):
        patches.set(dsl.envar, "_arch", device.arch)
        patches.set(dsl.envar, "shared_libs", library)
        patches.set(dsl.envar, "dump_dir", str(dump_folder))
        patches.set(dsl.envar, "disable_file_caching", True)  # a cached function has no PTX

    # Not through KEEP_PTX in the settings: that turns the cache in memory off.
    original = CompileOptions.apply_envar_settings

    def apply_envar_settings(options: Any, envar: Any, function_name: str) -> None:
        options.options[KeepPTX].value = True
        options.options[GenerateLineInfo].value = True  # messages name the author's lines
        original(options, envar, function_name)

    patches.set(CompileOptions, "apply_envar_settings", apply_envar_settings)


def _patch_compilation(patches: Patches) -> None:
    from cutlass.base_dsl.dsl import BaseDSL
    from cutlass.base_dsl.jit_executor import JitCompiledFunction
    from cutlass.cutlass_dsl.cuda_jit_executor import CudaDialectJitCompiledFunction

    original_init = JitCompiledFunction.__init__

    def init(function: Any, *args: Any, **kwargs: Any) -> None:
        original_init(function, *args, **kwargs)
        setattr(function, _CAPTURED, True)

    patches.set(JitCompiledFunction, "__init__", init)
    patches.set(CudaDialectJitCompiledFunction, "num_devices", property(lambda _function: 1))

    original_lookup_error = BaseDSL._jit_lookup_error

    def jit_lookup_error(dsl: Any, captured_stderr: str) -> Exception:
        missing = re.search(r"Symbols not found: \[([^\]]*)\]", captured_stderr)
        if missing is None:
            error: Exception = original_lookup_error(dsl, captured_stderr)
            return error
        return RuntimeError(
            f"the kernel's host code needs {missing[1].strip()}, which the software GPU's CUDA "
            "runtime does not have"
        )

    patches.set(BaseDSL, "_jit_lookup_error", jit_lookup_error)


def _patch_plain_calls(patches: Patches, calls: HostCalls) -> None:
    from cutlass.base_dsl.dsl import BaseDSL
    from cutlass.base_dsl.jit_executor import ExecutionArgs, JitExecutor
    from cutlass.cutlass_dsl.cuda_jit_executor import CudaDialectJitCompiledFunction

    original_to = CudaDialectJitCompiledFunction.to
    original_run = JitExecutor.run_compiled_program
    original_arguments = ExecutionArgs._generate_execution_args
    original_bound_args = BaseDSL._get_function_bound_args

    def to(function: Any, device: int | None = None) -> Any:
        name, ptx = _ptx_of(function)
        with calls.calling(name, ptx=None):
            executor = original_to(function, device)
        setattr(executor, _FUNCTION, (name, ptx))
        return executor

    def run_compiled_program(executor: Any, exe_args: list[Any]) -> int | None:
        if not hasattr(executor, _FUNCTION):
            raise RuntimeError(_COMPILED_OUTSIDE.format("the function"))
        with calls.calling(*getattr(executor, _FUNCTION)):
            error_code: int | None = original_run(executor, exe_args)
        return error_code

    def generate_execution_args(
        execution: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        calls.name_arguments(zip(execution._meta.all_names, args, strict=False))
        calls.name_arguments(kwargs.items())
        return original_arguments(execution, args, kwargs)

    def bound_args(dsl: Any, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """Of a `@cute.jit` function that is called without cute.compile."""
        bound: inspect.BoundArguments = original_bound_args(dsl, *args, **kwargs)
        calls.name_arguments(bound.arguments.items())
        return bound

    patches.set(CudaDialectJitCompiledFunction, "to", to)
    patches.set(JitExecutor, "run_compiled_program", run_compiled_program)
    patches.set(ExecutionArgs, "_generate_execution_args", generate_execution_args)
    patches.set(BaseDSL, "_get_function_bound_args", bound_args)


def _patch_tvm_ffi_calls(patches: Patches, calls: HostCalls) -> None:
    try:
        from cutlass.cutlass_dsl import tvm_ffi_provider
    except ImportError:  # apache-tvm-ffi is not installed: nothing can be compiled for it
        return

    def captured(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(function: Any, *args: Any, **kwargs: Any) -> Any:
            name, ptx = _ptx_of(function)
            names = function.execution_args._meta.all_names
            names = [*names, *(f"argument {index}" for index in range(len(names), len(args)))]
            with calls.calling(name, ptx):
                args = tuple(
                    _on_device(value, name, calls) for name, value in zip(names, args, strict=False)
                )
                kwargs = {name: _on_device(value, name, calls) for name, value in kwargs.items()}
                return original(function, *args, **kwargs)

        return call

    for cls in (
        tvm_ffi_provider.TVMFFIJitCompiledFunction,
        tvm_ffi_provider.TVMFFIJitCompiledFunctionWithKwargs,
    ):
        patches.set(cls, "__call__", captured(cls.__call__))


def _patch_tensors(patches: Patches, calls: HostCalls) -> None:
    """The DSL's tensors: all that from_dlpack makes, and all that a plain call takes."""
    from cutlass.cute.runtime import _Tensor

    original_init = _Tensor.__init__
    original_pointers = _Tensor.__c_pointers__

    def init(wrapper: Any, tensor: Any, *args: Any, **kwargs: Any) -> None:
        if not is_tensor(tensor):
            original_init(wrapper, tensor, *args, **kwargs)
            return
        require_host(tensor, "a tensor given to from_dlpack")
        original_init(wrapper, OnDevice(tensor), *args, **kwargs)
        setattr(wrapper, _SOURCE, tensor)

    def c_pointers(wrapper: Any) -> list[int]:
        source = getattr(wrapper, _SOURCE, wrapper)
        calls.add_argument(view_of_capsule(wrapper._dlpack_data), source, wrapper)
        pointers: list[int] = original_pointers(wrapper)
        return pointers

    patches.set(_Tensor, "__init__", init)
    patches.set(_Tensor, "__c_pointers__", c_pointers)


_COMPILED_OUTSIDE = (
    "{} was compiled outside ts_gpusim.device(...), for a real GPU: compile it inside to run it "
    "on the software GPU"
)


def _ptx_of(function: Any) -> tuple[str, str]:
    """Its name and its module."""
    name = function.function_name
    if not getattr(function, _CAPTURED, False):
        raise RuntimeError(_COMPILED_OUTSIDE.format(name))
    if not hasattr(function, _PTX):  # one text for all calls: parsed modules are found by it
        setattr(function, _PTX, (function.__ptx__ or "").rstrip("\0"))
    return name, getattr(function, _PTX)


def _on_device(value: Any, name: str, calls: HostCalls) -> Any:
    """The argument with every host tensor in it presented as on the device."""
    from cutlass.cute.runtime import _Tensor

    if type(value) is _Tensor:
        calls.arguments.add_view(view_of_capsule(value._dlpack_data), value, name)
        return value if hasattr(value, _SOURCE) else OnDevice(value.__tvm_ffi_object__())
    if is_tensor(value):
        require_host(value, f"argument {name}")
        calls.arguments.add_view(view_of(value), value, name)
        return OnDevice(value)
    if isinstance(value, (list, tuple)):
        mapped = [_on_device(v, f"{name}[{i}]", calls) for i, v in enumerate(value)]
        return type(value)(*mapped) if hasattr(value, "_fields") else type(value)(mapped)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _replace_fields(value, name, calls)
    return value


def _replace_fields(value: Any, name: str, calls: HostCalls) -> Any:
    replaced = copy.copy(value)
    for field in dataclasses.fields(value):
        part = _on_device(getattr(value, field.name), f"{name}.{field.name}", calls)
        object.__setattr__(replaced, field.name, part)
    return replaced
