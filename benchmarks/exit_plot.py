"""The frontier of early exit as an SVG file: one panel for each checkpoint, one line for each way.

Written by hand rather than with a plotting library, so that the file is small and the same
everywhere.
"""

from __future__ import annotations

from html import escape
from typing import Any

WIDE, HIGH, LEFT, BOTTOM, TOP = 400, 270, 52, 40, 28
MOST = 0.06  # nats shown
COLOURS = ("#7a7a7a", "#b8860b", "#1f6fb4", "#b03a2e", "#2e8b57", "#6a3d9a")


def plot(rows: list[dict[str, Any]]) -> str:
    """Rows of `exit_frontier.py` -> SVG: share of the layers passed against nats above all."""
    height = HIGH + 22 * max(len(row["frontiers"]) for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE * len(rows)} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDE * len(rows)}" height="{height}" fill="white"/>',
    ]
    for number, row in enumerate(rows):
        parts += panel(row, number * WIDE)
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(row: dict[str, Any], left: int) -> list[str]:
    """One checkpoint, `left` pixels from the edge."""

    def across(share: float) -> float:
        return left + LEFT + share * (WIDE - LEFT - 16)

    def down(nats: float) -> float:
        return HIGH - BOTTOM - min(max(nats, 0.0), MOST) / MOST * (HIGH - BOTTOM - TOP)

    out = [f'<text x="{across(0)}" y="16">{escape(str(row["checkpoint"]))}</text>']
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
        out.append(
            f'<text x="{across(share)}" y="{HIGH - 22}" text-anchor="middle">{share:.0%}</text>'
        )
    for nats in (0.0, 0.01, 0.02, 0.04, 0.06):
        dash = ' stroke-dasharray="4"' if nats == 0.01 else ""
        y = down(nats)
        out.append(
            f'<path d="M{across(0)} {y:.1f}H{across(1)}" stroke="#ddd"{dash}/>'
            f'<text x="{across(0) - 6}" y="{y + 4:.1f}" text-anchor="end">{nats:g}</text>'
        )
    x = across(0.4)
    out.append(f'<path d="M{x} {TOP}V{HIGH - BOTTOM}" stroke="#ddd" stroke-dasharray="4"/>')
    out.append(
        f'<text x="{across(0.5)}" y="{HIGH - 6}" text-anchor="middle">'
        "layers a token passes; up: nats above all layers</text>"
    )
    for n, (name, found) in enumerate(row["frontiers"].items()):
        colour = COLOURS[n % len(COLOURS)]
        points = sorted([*((p["share"], p["more"]) for p in found["at"].values()), (1.0, 0.0)])
        shown = [p for p in points if p[1] <= MOST]
        line = " ".join(f"{across(a):.1f},{down(b):.1f}" for a, b in shown)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = HIGH + 12 + 22 * n
        out.append(
            f'<path d="M{across(0)} {y - 4}h24" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{across(0) + 32}" y="{y}">{escape(name)}: '
            f"{found['at']['0.01']['share']:.0%} at +0.01</text>"
        )
    return out
