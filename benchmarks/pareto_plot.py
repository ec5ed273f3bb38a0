# SPDX-License-Identifier: MIT
"""Throughput against the TPS floor, as SVG: the floor that was asked, and what users attained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 460, 340  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 44, 78
ASKED, ATTAINED, GRID, TEXT = "#1f5fbf", "#d9730d", "#e3e3e3", "#333333"


@dataclass(frozen=True)
class Point:
    floor: float  # tokens/s asked for each user; 0: none
    throughput: float
    attained: float  # tokens/s that 99 of 100 users had


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    points: list[Point]


def write_svg(path: Path, panels: list[Panel]) -> None:
    width = WIDTH * len(panels)
    body = "\n".join(_panel(panel, WIDTH * i) for i, panel in enumerate(panels))
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" '
        f'viewBox="0 0 {width} {HEIGHT}" font-family="sans-serif" font-size="12" '
        f'fill="{TEXT}">\n<rect width="{width}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _panel(panel: Panel, left: float) -> str:
    x_ticks = _ticks(max(max(p.floor, p.attained) for p in panel.points))
    y_ticks = _ticks(max(p.throughput for p in panel.points))
    span_x, span_y = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(value: float) -> float:
        return left + LEFT + span_x * value / x_ticks[-1]

    def y(value: float) -> float:
        return TOP + span_y * (1 - value / y_ticks[-1])

    parts = [
        f'<text x="{left + LEFT}" y="22" font-size="14" font-weight="bold">'
        f"{escape(panel.title)}</text>",
        f'<text x="{left + LEFT}" y="{TOP - 6}">{escape(panel.unit)}</text>',
        f'<text x="{x(x_ticks[-1] / 2):.1f}" y="{HEIGHT - 42}" text-anchor="middle">'
        "tokens/s for each user</text>",
    ]
    for tick in x_ticks:
        parts.append(_line(x(tick), y(0), x(tick), y(y_ticks[-1]), GRID))
        parts.append(
            f'<text x="{x(tick):.1f}" y="{y(0) + 16:.1f}" text-anchor="middle">{tick:g}</text>'
        )
    for tick in y_ticks:
        parts.append(_line(x(0), y(tick), x(x_ticks[-1]), y(tick), GRID))
        parts.append(
            f'<text x="{x(0) - 6:.1f}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,g}</text>'
        )
    for p in panel.points:
        parts.append(_line(x(p.floor), y(p.throughput), x(p.attained), y(p.throughput), "#b5b5b5"))
    path = " ".join(f"{x(p.floor):.1f},{y(p.throughput):.1f}" for p in panel.points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{ASKED}" stroke-width="2"/>')
    for p in panel.points:
        parts.append(_dot(x(p.attained), y(p.throughput), "white", ATTAINED))
        parts.append(_dot(x(p.floor), y(p.throughput), ASKED, ASKED))
    bottom, middle = HEIGHT - 16, left + LEFT
    parts += [
        _dot(middle + 6, bottom - 4, ASKED, ASKED),
        f'<text x="{middle + 16}" y="{bottom}">floor asked</text>',
        _dot(middle + 116, bottom - 4, "white", ATTAINED),
        f'<text x="{middle + 126}" y="{bottom}">attained by 99 of 100 users</text>',
    ]
    return "\n".join(parts)


def _ticks(most: float) -> list[float]:
    """From 0 to beyond `most`, at round distances."""
    rough = most / 5
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough)
    return [step * i for i in range(math.ceil(most / step) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _dot(x: float, y: float, fill: str, stroke: str) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{stroke}" '
        'stroke-width="2"/>'
    )
