"""The bench in one look, for docs/bench.md: both Dice scores of every method with their intervals, the best first."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from reportseg.charts import WIDTH, Row, interval_plot
from reportseg.page import Html, el
from reportseg.report_numbers import NAMES

SCORES = ("dice_pooled", "dice_mean")
GAP, TOP = 24, 30
#: A picture in a page knows nothing of the page's theme: one set of colours on a ground of its own.
STYLE = """
text { font: 11.5px system-ui, sans-serif; fill: #1b1f23; font-variant-numeric: tabular-nums; }
.strong { font-weight: 600; } .tick { fill: #565e66; } .grid { stroke: #e9ebec; } .axis { stroke: #565e66; }
.halo { paint-order: stroke; stroke: #fff; stroke-width: 4px; stroke-linejoin: round; }
.range { stroke: #0b6b73; stroke-width: 7; opacity: 0.35; } .dot { fill: #0b6b73; }
"""


def figure(arms: Mapping[str, Mapping[str, list[float]]], intervals: Mapping[str, Mapping[str, list[float]]]) -> str:
    """An SVG file. `arms`: of each method's name and score the value under each seed; `intervals`: (lower, upper) of their mean."""
    plots = [_plot(score, arms, intervals) for score in SCORES]
    width, height = 2 * WIDTH + GAP, TOP + 44 * len(arms) + 28
    placed = [
        Html(plot.replace("<svg ", f'<svg x="{i * (WIDTH + GAP)}" y="{TOP}" width="{WIDTH}" height="{height - TOP}" ', 1))
        for i, plot in enumerate(plots)
    ]
    heads = [el("text", NAMES[score], class_="strong", x=i * (WIDTH + GAP) + 12, y=20) for i, score in enumerate(SCORES)]
    ground = el("rect", width=width, height=height, rx=8, fill="#fff")
    box = f"0 0 {width} {height}"
    style = el("style", Html(STYLE))
    return el("svg", style, ground, *heads, *placed, xmlns="http://www.w3.org/2000/svg", viewBox=box, width=width, height=height) + "\n"


def _plot(score: str, arms: Mapping[str, Mapping[str, list[float]]], intervals: Mapping[str, Mapping[str, list[float]]]) -> Html:
    rows: list[Row] = []
    for name, scores in arms.items():
        lower, upper = intervals.get(name, {}).get(score, (None, None))
        rows.append((name, fmean(scores[score]), lower, upper))
    return interval_plot(sorted(rows, key=lambda row: -row[1]), NAMES[score])
