# SPDX-License-Identifier: MIT
"""Rotary position tables, plain and YaRN-scaled.

YaRN: Peng et al., arXiv:2309.00071. DeepSeek adds `mscale` and `mscale_all_dim`: the ratio of
the two temperatures scales cos and sin, the square of the second scales the softmax.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.errors import ModelError


@dataclass(frozen=True)
class Yarn:
    """The parameters of YaRN, named as in config.json."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True

    def temperature(self, mscale: float = 1.0) -> float:
        """sqrt(1/t) of the paper's section 3.4, with DeepSeek's weight on the logarithm."""
        if self.factor <= 1:
            return 1.0
        return 0.1 * mscale * math.log(self.factor) + 1.0

    @property
    def table_scale(self) -> float:
        """What cos and sin are multiplied by."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self.temperature(self.mscale) / self.temperature(self.mscale_all_dim)
        return self.temperature()

    @property
    def softmax_scale(self) -> float:
        """What the softmax scale is multiplied by, besides 1/sqrt(head_dim)."""
        return self.temperature(self.mscale_all_dim) ** 2 if self.mscale_all_dim else 1.0


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of `dim` columns; pair i turns by `theta ** (-2i / dim)` per position."""

    dim: int
    theta: float
    yarn: Yarn | None = None

    @classmethod
    def from_config(cls, config: ConfigFile, dim: int, max_position_embeddings: int) -> Rope:
        """Read `rope_theta` and `rope_scaling`, or `rope_parameters` as transformers 5 writes it.

        A non-empty `rope_scaling` wins over `rope_parameters`, and a top-level
        `original_max_position_embeddings` over theirs, as they do in `transformers`.
        """
        scaling = config.nested("rope_scaling")
        if scaling is None or not scaling.values:
            scaling = config.nested("rope_parameters")
        if not config.values.keys() & {"rope_scaling", "rope_parameters"}:
            config.note_default("rope_scaling", None)
        _refuse_partial_rotation(config)
        if scaling is None or not scaling.values:
            return cls(dim, config.number("rope_theta", 10000.0))

        states_theta = "rope_theta" in scaling
        theta = (scaling if states_theta else config).number("rope_theta", 10000.0)
        _refuse_partial_rotation(scaling)
        if _kind(scaling) == "default":
            return cls(dim, theta)

        original = "original_max_position_embeddings"
        yarn = Yarn(
            factor=scaling.number("factor"),
            original_max_position_embeddings=config.integer(original)
            if original in config
            else scaling.integer(original, max_position_embeddings),
            beta_fast=scaling.number("beta_fast", 32.0),
            beta_slow=scaling.number("beta_slow", 1.0),
            mscale=scaling.number_or_none("mscale"),
            mscale_all_dim=scaling.number_or_none("mscale_all_dim"),
            attention_factor=scaling.number_or_none("attention_factor"),
            truncate=scaling.flag("truncate", True),
        )
        return cls(dim, theta, yarn)

    @property
    def softmax_scale(self) -> float:
        return self.yarn.softmax_scale if self.yarn else 1.0

    def frequencies(self) -> Tensor:
        """Radians per position of each pair, [dim / 2] fp32."""
        exponents = torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim
        plain = 1.0 / self.theta**exponents
        if self.yarn is None:
            return plain
        # Section 3.2, "NTK-by-parts": pairs that turn often within the original context keep
        # their frequency, pairs that turn less than once are interpolated, a ramp in between.
        low, high = self._correction_range(self.yarn)
        ramp = (torch.arange(self.dim // 2, dtype=torch.float32) - low) / (high - low)
        interpolated = ramp.clamp(0, 1)
        return plain / self.yarn.factor * interpolated + plain * (1 - interpolated)

    def table(self, max_positions: int, device: torch.device | str = "cpu") -> Tensor:
        """`[max_positions, dim]` fp32: cos of each pair in the first half, sin in the second."""
        angles = torch.outer(
            torch.arange(max_positions, dtype=torch.float32, device=device),
            self.frequencies().to(device),
        )
        scale = self.yarn.table_scale if self.yarn else 1.0
        table = torch.empty((max_positions, self.dim), dtype=torch.float32, device=device)
        cos, sin = table.chunk(2, dim=-1)
        torch.cos(angles, out=cos)
        torch.sin(angles, out=sin)
        return table.mul_(scale) if scale != 1.0 else table

    def interleaved_rows(self, groups: int, width: int) -> Tensor:
        """The rows of a projection whose rotary rows, the last `dim` of each group of `width`, pair
        row i with i + dim/2, in the order that pairs (2i, 2i + 1).

        So one rope op serves both kinds of checkpoints; query and key move alike.
        """
        rows = torch.arange(groups * width).view(groups, width)
        plain, rotary = rows.tensor_split((width - self.dim,), dim=1)
        interleaved = rotary.view(groups, 2, -1).transpose(1, 2).flatten(1)
        return torch.cat([plain, interleaved], dim=1).flatten()

    def _correction_range(self, yarn: Yarn) -> tuple[float, float]:
        """The pairs between which the ramp runs, from the turns they make (paper, eq. 17–18)."""

        def pair_with(turns: float) -> float:
            period = yarn.original_max_position_embeddings / (turns * 2 * math.pi)
            return self.dim * math.log(period) / (2 * math.log(self.theta))

        low, high = pair_with(yarn.beta_fast), pair_with(yarn.beta_slow)
        if yarn.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.dim - 1)
        return low, high if high != low else high + 0.001


def _kind(scaling: ConfigFile) -> str:
    kind = "type" if "type" in scaling and "rope_type" not in scaling else "rope_type"
    others = sorted(scaling.values.keys() - {"rope_type", "type", "rope_theta"})
    if kind not in scaling and others:
        # `transformers` would compute plain rope and leave these unread.
        raise ModelError(
            f"{scaling.path} has {', '.join(others)} but no rope_type; state rope_type "
            '"yarn" or "default"'
        )
    return scaling.choice(kind, ("default", "yarn"), "default")


def _refuse_partial_rotation(config: ConfigFile) -> None:
    factor = config.values.get("partial_rotary_factor")
    if factor is not None and factor != 1:
        raise ModelError(
            f"{config.path} has partial_rotary_factor {factor}, but this version rotates all "
            "rotary dimensions; remove the key or make it 1"
        )
