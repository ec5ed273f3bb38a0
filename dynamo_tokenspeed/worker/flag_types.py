# SPDX-License-Identifier: MIT
"""From a flag's text to its value; `argparse.ArgumentTypeError` says what is wrong with it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

from dynamo_tokenspeed.worker.generation_config import parse_override

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B?|B)?", re.IGNORECASE)
_TRUE, _FALSE = ("1", "true", "on", "yes"), ("0", "false", "off", "no", "")


def text(given: str) -> str:
    if not given.strip():
        raise argparse.ArgumentTypeError("it is empty: give a value, or leave it out")
    return given


def positive_int(text: str) -> int:
    value = whole_int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small: give 1 or more")
    return value


def natural_int(text: str) -> int:
    value = whole_int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{value} is not a number from 0 to {2**31 - 1}")
    return value


def whole_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def seconds(text: str) -> float:
    return _not_negative(text, "seconds")


def tokens_per_second(text: str) -> float:
    return _not_negative(text, "tokens/s")


def _not_negative(text: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit}") from None
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of {unit}, 0 or more")
    return value


def size(text: str) -> int:
    """Bytes from `2GiB`, `500M`, `1000000`; K, M, G, T are powers of 1024, KB ... of 1000."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 2GiB or 500M")
    number, prefix, binary = match.groups()
    base = 1000 if prefix and not binary and text.strip().upper().endswith("B") else 1024
    factor = base ** " KMGT".index(prefix.upper()) if prefix else 1
    value = int(float(number) * factor)
    if value < 1:
        raise argparse.ArgumentTypeError("0 bytes hold no KV page")
    return value


def generation_override(text: str) -> dict[str, Any]:
    try:
        return parse_override(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def one_of(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(values)}")
        return text

    return parse


def boolean(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in _TRUE


def names(text: str) -> list[str]:
    return [name for name in re.split(r"[\s,]+", text) if name]
