# SPDX-License-Identifier: MIT
"""Of a recorded run: the file, and what is made of it."""
