# SPDX-License-Identifier: MIT
"""The dtypes of the native kernels, which would read any other as one of these."""

from __future__ import annotations

import torch

BF16 = torch.bfloat16
DTYPES = (torch.float32, BF16)
