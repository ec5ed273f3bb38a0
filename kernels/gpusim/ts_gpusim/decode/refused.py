# SPDX-License-Identifier: MIT
"""What PTX has and the machine does not execute, and why: `python -m ts_gpusim opcodes` lists it.

Forms that are refused one by one say so where they are decoded; PARTS names them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    section: str  # of the PTX ISA 9.0
    why: str


_TEXTURES = Refusal("9.7.10", "textures are not supported; load from global memory")
_SURFACES = Refusal("9.7.11", "surfaces are not supported; load from global memory")
_STACK = Refusal("9.7.17", "the stack has frames of fixed size; use a .local array")
_VIDEO = Refusal("9.7.18", "video instructions are not supported; use integer arithmetic")
_WMMA = Refusal("9.7.14.4", "how its fragments lie in registers is not published; use mma")
_VIDEO_OPCODES = ("vadd", "vsub", "vabsdiff", "vmin", "vmax", "vset", "vavrg")

# By opcode.
OPCODES: dict[str, Refusal] = {
    "brkpt": Refusal("9.7.19.1", "no debugger is here; use trap"),
    "multimem": Refusal("9.7.9.14", "it reaches several GPUs, and here is one; use red or st"),
    **dict.fromkeys(("tex", "tld4", "txq", "istypep"), _TEXTURES),
    **dict.fromkeys(("suld", "sust", "sured", "suq"), _SURFACES),
    **dict.fromkeys(("alloca", "stacksave", "stackrestore"), _STACK),
    **dict.fromkeys(("vshl", "vshr", "vmad"), _VIDEO),
    **{f"{name}{lanes}": _VIDEO for name in _VIDEO_OPCODES for lanes in ("", "2", "4")},
    "wmma": _WMMA,
}

# Of what is executed otherwise: section, and what of it is not.
PARTS: tuple[tuple[str, str], ...] = (
    ("9.7.9.12", "st.async that no mbarrier announces"),
    ("9.7.9.19", "isspacep of .const and .param"),
    ("9.7.9.20", "cvta of 32-bit addresses"),
    ("9.7.9.21", "cvt.rs: which random bits go where is not published as text"),
    ("9.7.9.25.5.2", "im2col: how such a tensor map is laid out is not published"),
    ("9.7.9.26", "tensormap.replace to strides, interleaving, fills and swizzles beyond the usual"),
    ("9.7.12.5", "call of functions without a body here, such as vprintf; guarded recursion"),
    ("9.7.13.7", "red.async that no mbarrier announces"),
    ("9.7.14.5.14", "mma of kinds and block scales: they need sm_120a, which no device here is"),
    ("9.7.14.5.14", "mma of single bits and of 4-bit integers; m8n8k4 of f16: use m16n8k8"),
)
