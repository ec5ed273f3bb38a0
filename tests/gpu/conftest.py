# SPDX-License-Identifier: MIT
"""The software GPU's tests have pieces of kernels that are used here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "gpusim"))
