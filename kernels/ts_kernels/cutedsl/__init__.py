# SPDX-License-Identifier: MIT
"""Kernels of our own in CuTe DSL: compiled for the chip's architecture, run there or on ts_gpusim.

Importing this package needs no cutlass; calling a kernel does. docs/kernels.md explains them.
"""

from ts_kernels.cutedsl.mla import mla_decode

__all__ = ["mla_decode"]
