# SPDX-License-Identifier: MIT
"""A software GPU: kernels for Hopper and Blackwell, run from their PTX on a CPU."""

from ts_gpusim.counters import Counters, MmaCount
from ts_gpusim.device import Device, device
from ts_gpusim.faults import Fault, Finding, LaunchError
from ts_gpusim.launch import Dim3, Launch, LaunchAttributes
from ts_gpusim.launch_ptx import launch_ptx
from ts_gpusim.machine import Machine, Run
from ts_gpusim.memory import Allocation, MemoryMap

__all__ = [
    "Allocation",
    "Counters",
    "Device",
    "Dim3",
    "Fault",
    "Finding",
    "Launch",
    "LaunchAttributes",
    "LaunchError",
    "Machine",
    "MemoryMap",
    "MmaCount",
    "Run",
    "device",
    "launch_ptx",
]
