# SPDX-License-Identifier: MIT
"""config.json, read field by field, each field checked where it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dynamo_tokenspeed.model.errors import ModelError

_MISSING = object()
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class ConfigFile:
    """The parsed config.json of a model directory, or one of its nested objects.

    `path` is what error messages call the object: the file, then the keys that lead into it.
    A key whose value is null counts as absent, except where null itself says something
    (`integer_or_null`). `defaulted` collects what the readers below took from their defaults.
    """

    directory: Path
    path: str
    values: Mapping[str, Any]
    prefix: str = ""  # of this object's keys in `defaulted`: "text_config."
    defaulted: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: str | Path) -> ConfigFile:
        """Read `directory/config.json`; `ModelError` when there is no such object."""
        directory = Path(directory)
        if not directory.is_dir():
            raise ModelError(f"model directory {directory} does not exist (--model)")
        path = directory / "config.json"
        if not path.is_file():
            raise ModelError(
                f"{directory} has no config.json; --model takes a directory in the "
                "Hugging Face layout (config.json, *.safetensors, tokenizer.json)"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ModelError(f"{path} cannot be read as JSON: {error}") from None
        if not isinstance(values, dict):
            raise ModelError(f"{path} holds a {type(values).__name__} where an object is expected")
        return cls(directory, str(path), values)

    def nested(self, key: str) -> ConfigFile | None:
        """The object under `key`, or None when it is absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        prefix = f"{self.prefix}{key}."
        return ConfigFile(self.directory, f"{self.path}: {key}", value, prefix, self.defaulted)

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def integer(self, key: str, default: Any = _MISSING, *, minimum: int = 1) -> int:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self._wrong(key, value, f"an integer of at least {minimum}")
        return value

    def integer_or_null(self, key: str, *, minimum: int = 1) -> int | None:
        """None where null says that the model has no such thing. Absent says nothing: refused."""
        if key not in self.values:
            raise ModelError(f"{self.path} has no {key}; null says that the model has none")
        return self.integer(key, minimum=minimum) if key in self else None

    def number(self, key: str, default: Any = _MISSING, *, positive: bool = True) -> float:
        value = self._get(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or (positive and value <= 0):
            raise self._wrong(key, value, f"a {'positive ' if positive else ''}finite number")
        return float(value)

    def number_or_none(self, key: str) -> float | None:
        return self.number(key, positive=False) if key in self else self._get(key, None)

    def flag(self, key: str, default: Any = _MISSING) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, key: str, default: Any = _MISSING) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def choice(self, key: str, supported: tuple[str, ...], default: str) -> str:
        """The string under `key`, which must be one that this version computes."""
        value = self.text(key, default)
        if value not in supported:
            raise ModelError(
                f"{self.path} asks for {key} {value!r}, but this version computes only "
                f"{', '.join(supported)}"
            )
        return value

    def note_default(self, key: str, default: Any) -> None:
        """Remember that `key` is not stated and what is taken for it."""
        self.defaulted[self.prefix + key] = default

    def stated(self, key: str) -> str:
        """A key with the value that counts, as a sentence names it."""
        name = self.prefix + key
        if name in self.defaulted:
            return f"{key} {json.dumps(self.defaulted[name])} (the default, as it is not stated)"
        return f"{key} {json.dumps(self.values.get(key))}"

    def dtype(self) -> torch.dtype | None:
        """The checkpoint's dtype (`dtype`, formerly `torch_dtype`); None when not stated."""
        key = "dtype" if "dtype" in self else "torch_dtype"
        if key not in self:
            return None
        name = self.text(key).removeprefix("torch.")
        if name not in DTYPES:
            raise self._wrong(key, name, f"one of {', '.join(DTYPES)}")
        return DTYPES[name]

    def architecture(self) -> str:
        """The first entry of `architectures`."""
        names = self._get("architectures", _MISSING)
        if not isinstance(names, list) or not names or not isinstance(names[0], str):
            raise self._wrong("architectures", names, "a list of class names")
        return names[0]

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is _MISSING:
            raise ModelError(f"{self.path} has no {key}")
        self.note_default(key, default)
        return default

    def _wrong(self, key: str, value: Any, expected: str) -> ModelError:
        return ModelError(f"{self.path} has {key} {value!r} where {expected} is expected")
