# SPDX-License-Identifier: MIT
"""Programs that make what tests and benchmarks need; nothing that serves imports them."""
