# SPDX-License-Identifier: MIT
"""One worker on every ai-dynamo from 1.4.2 to 1.6.1.

The contract's classes gained and lost fields between the releases. What a
release does not know is left out, where leaving it out changes nothing.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, TypeVar

T = TypeVar("T")


def fields_of(cls: type) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(cls))


def construct(cls: type[T], **kwargs: Any) -> T:
    """`cls(**kwargs)` without the arguments that this release's class does not have."""
    known = fields_of(cls)
    return cls(**{name: value for name, value in kwargs.items() if name in known})


def structural_tags_off(worker_config_cls: type) -> dict[str, Any]:
    """The `WorkerConfig` arguments that keep the frontend from sending structural tags.

    1.6 sends them by default for tool calls; a worker without guided decoding
    would have to refuse every chat that offers tools.
    """
    if "structural_tag" in fields_of(worker_config_cls):
        return {"structural_tag": None}  # 1.6
    return {"structural_tag_mode": "off"}  # 1.4


def skipped_template_tags(worker_config_cls: type) -> re.Pattern[str]:
    """The tags of transformers that the frontend takes out of a chat template before it parses it.

    1.4 leaves those that trim white space (`{%- generation -%}`), and then finds them unknown.
    """
    if "structural_tag" in fields_of(worker_config_cls):
        return re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # 1.6
    return re.compile(r"\{% (end)?generation %\}")  # 1.4
