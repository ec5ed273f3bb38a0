# SPDX-License-Identifier: MIT
"""What a device is: its architecture and its limits.

Limits: CUDA C++ Programming Guide, "Compute Capabilities"; all three architectures share them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CAPABILITY_AND_SMS = {
    "sm_90": ((9, 0), 132),  # H100 SXM
    "sm_100": ((10, 0), 148),  # B200
    "sm_103": ((10, 3), 148),  # B300
}
_ARCHITECTURE = re.compile(r"sm_(\d+)(\d)([af]?)")

MAX_THREADS_PER_BLOCK = 1024
MAX_BLOCK = (1024, 1024, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_CLUSTER = 16  # blocks; 8 is the portable size
SHARED_BYTES_PER_BLOCK = 48 * 1024
SHARED_BYTES_PER_BLOCK_OPT_IN = 227 * 1024
SHARED_BYTES_PER_SM = 228 * 1024


@dataclass(frozen=True)
class DeviceProperties:
    arch: str  # as in PTX's .target, such as sm_100a
    capability: tuple[int, int]
    sms: int

    @property
    def name(self) -> str:
        return f"software GPU {self.arch}"

    def max_active_clusters(self, blocks: int) -> int:
        """With one block for each SM. A GPU may have fewer: its clusters lie within one GPC."""
        return self.sms // blocks

    def runs(self, target: str) -> bool:
        """PTX ISA, `.target`: `a` is that architecture only, `f` its family, else from it on."""
        match = _ARCHITECTURE.fullmatch(target)
        if match is None:
            return False
        capability = (int(match[1]), int(match[2]))
        if match[3] == "a":
            return capability == self.capability
        if match[3] == "f" and capability[0] != self.capability[0]:
            return False
        return capability <= self.capability


def device_properties(arch: str, sms: int | None = None) -> DeviceProperties:
    """`sms`: the product's own number without one."""
    match = _ARCHITECTURE.fullmatch(str(arch))
    name = f"sm_{match[1]}{match[2]}" if match else ""
    if name not in _CAPABILITY_AND_SMS:
        known = ", ".join(f"{known}a" for known in _CAPABILITY_AND_SMS)
        raise ValueError(f"the software GPU has no architecture {arch!r}; it has {known}")
    capability, default_sms = _CAPABILITY_AND_SMS[name]
    if sms is not None and sms < 1:
        raise ValueError(f"sms={sms}, but a device has at least one SM")
    return DeviceProperties(arch, capability, default_sms if sms is None else sms)
