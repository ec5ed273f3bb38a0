# SPDX-License-Identifier: MIT
"""Signs of life from within a kernel, for somebody who waits for it and wonders."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_word: npt.NDArray[np.uint64] | None = None  # the kernels hold no reference


def count_progress_in(word: npt.NDArray[np.uint64]) -> None:
    """Let the native kernels add to `word` [1] while they compute: once for each chunk of work.

    It may be memory that another process reads. Where there are no native kernels, it stays as it
    is; ValueError for anything but one writable word.
    """
    if word.shape != (1,) or word.dtype != np.uint64 or not word.flags.writeable:
        raise ValueError(f"word must be one writable uint64, not {word.dtype} {list(word.shape)}")
    try:
        from ts_kernels import _native
    except ImportError:
        return
    global _word
    _native.count_progress_at(word.ctypes.data)
    _word = word
