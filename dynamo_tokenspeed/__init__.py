# SPDX-License-Identifier: MIT
"""The dynamo-tokenspeed worker and engine.

Kept empty of imports: every interpreter of an environment with this package
installed reads this file once at start (see `_finder.py`).
"""

__version__ = "0.1.0"
