"""The plots of a report as inline SVG: no font, script or file from elsewhere. Colours are CSS classes, so the page's theme decides.

Every plot is WIDTH units wide with the same type size, and scales with its column. What is hovered says its numbers (`title`); a reader
who cannot hover has them in a table beside the plot, or in the line below its title.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .page import Child, Html, el, join, minus

WIDTH = 420
ECE_BINS = 15
Row = tuple[str, float, float | None, float | None]  # label, value, lower, upper


@dataclass(frozen=True)
class Frame:
    """A plot's area: data (x0..x1, y0..y1) onto pixels (left..right, bottom..top)."""

    x0: float
    x1: float
    y0: float
    y1: float
    left: float = 52
    right: float = WIDTH - 10
    top: float = 20
    bottom: float = 212

    def x(self, value: float) -> float:
        """Data to pixels, left to right."""
        return self.left + (value - self.x0) / (self.x1 - self.x0) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Data to pixels; larger values lie higher, so at smaller pixels."""
        return self.bottom - (value - self.y0) / (self.y1 - self.y0) * (self.bottom - self.top)


def ticks(lo: float, hi: float, n: int = 5) -> list[float]:
    """About n round numbers within lo..hi, steps of 1, 2 or 5 times a power of ten."""
    raw = (hi - lo) / max(n, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.8)
    first = math.ceil(lo / step - 1e-9)
    return [k * step for k in range(first, math.floor(hi / step + 1e-9) + 1)]


def tick_label(value: float, step: float) -> str:
    """A tick's label: as many decimals as the step needs, thousands as k, millions as M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if step >= size / 10 and abs(value) >= size:
            return minus(f"{value / size:.{0 if step >= size else 1}f}") + unit
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return minus(f"{value:.{min(decimals, 6)}f}") if abs(value) > step / 1e3 else "0"


def interval_plot(rows: Sequence[Row], title: str, *, differences: bool = False, mark: float | None = None) -> Html:
    """One line of text per row, its interval drawn below on a common axis; `differences` adds the line at zero and signs, `mark` shades
    what lies between 0 and it.
    """
    values = [v for _, value, lo, hi in rows for v in (value, lo, hi) if v is not None] + ([0.0] if differences else [])
    values += [mark] if mark is not None else []
    low, high = min(values), max(values)
    pad = max(0.08 * (high - low), 0.005)
    bottom = 44.0 * len(rows) + 2
    frame = Frame(low - pad, high + pad, 0, 1, left=12, right=WIDTH - 12, top=2, bottom=bottom)
    parts: list[Child] = [_x_axis(frame, 5)]
    if mark is not None:
        parts.append(el("rect", class_="band", x=frame.x(0), y=frame.top, width=frame.x(mark) - frame.x(0), height=bottom - frame.top))
    for i, (label, value, lo, hi) in enumerate(rows):
        y = 44.0 * i + 18
        shown = f"{value:+.3f}" if differences and abs(value) >= 0.0005 else f"{abs(value) if differences else value:.3f}"
        if lo is not None and hi is not None:
            shown += f" [{lo:.3f}, {hi:.3f}]"
        parts += [
            el("text", _short(label, 34), el("title", label), class_="halo", x=frame.left, y=y),
            el("text", minus(shown), class_="halo", x=frame.right, y=y, text_anchor="end"),
        ]
        if differences:
            parts.append(el("line", class_="zero", x1=frame.x(0), x2=frame.x(0), y1=y + 6, y2=y + 20))
        if lo is not None and hi is not None:
            parts.append(el("line", class_="range c1", x1=frame.x(lo), x2=frame.x(hi), y1=y + 13, y2=y + 13))
        parts.append(el("circle", class_="dot c1", cx=frame.x(value), cy=y + 13, r=4.5))
    return _svg(title, bottom + 26, *parts)


def bar_plot(rows: Sequence[tuple[str, float]], title: str) -> Html:
    """One bar of 0..1 per row, its value beside it; the dashed line goes on where the first row ends."""
    frame = Frame(0, 1, 0, 1, left=118, right=WIDTH - 52, top=0, bottom=28.0 * len(rows))
    first = frame.x(rows[0][1])
    parts: list[Child] = []
    for i, (label, value) in enumerate(rows):
        y = 28.0 * i + 4
        parts += [
            el("text", _short(label, 16), el("title", label), x=frame.left - 10, y=y + 14, text_anchor="end"),
            el("rect", class_="track", x=frame.left, y=y, width=frame.right - frame.left, height=20.0),
            el(
                "rect", class_="bar c1" if i == 0 else "bar c0", x=frame.left, y=y, width=max(frame.x(value) - frame.left, 1.0), height=20.0
            ),
            el("text", f"{value:.3f}", x=frame.right + 8, y=y + 14),
        ]
    if len(rows) > 1:
        parts.append(el("line", class_="zero", x1=first, x2=first, y1=28, y2=frame.bottom - 4))
    return _svg(title, frame.bottom, *parts)


@dataclass(frozen=True)
class Rung:
    """A row of `ladder_plot`. `own` is what `value` is measured against on the same cases, `line` where its dashed mark stands; `style`
    a colour class.
    """

    label: str
    under: str
    value: float
    own: float
    style: str
    line: float | None = None


def ladder_plot(rungs: Sequence[Rung], title: str, line: str = "") -> Html:
    """Bars of 0..1, each below its two lines of label; what is missing to `own` is shaded up to a tick. `line` names the dashed marks."""
    named = rungs[0].line if line else None
    top, pitch = 24.0 if named is not None else 0.0, 64.0
    frame = Frame(0, 1, 0, 1, left=8, right=WIDTH - 8, top=top, bottom=top + pitch * len(rungs))
    parts: list[Child] = [_x_axis(frame, 5)]
    for i, rung in enumerate(rungs):
        y, end, own = top + pitch * i, frame.x(rung.value), frame.x(rung.own)
        bar = {"y": y + 38, "height": 16.0}
        difference = rung.value - rung.own
        loss = minus(f"{difference:+.3f}") if abs(difference) >= 0.0005 else ""
        parts += [
            el("text", _short(rung.label, 30), el("title", rung.label), class_="halo strong", x=frame.left, y=y + 14),
            el("text", _short(rung.under, 38), el("title", rung.under), class_="halo tick", x=frame.left, y=y + 31),
            el("text", f"{rung.value:.3f}", class_="halo strong", x=frame.right, y=y + 14, text_anchor="end"),
            el("text", loss, class_="halo tick", x=frame.right, y=y + 31, text_anchor="end"),
            el("rect", class_=f"bar {rung.style}", x=frame.left, width=max(end - frame.left, 1.0), **bar),
        ]
        if loss:
            lost = difference < 0
            parts.append(el("rect", class_=f"gap {'c2' if lost else 'c1'}", x=min(end, own), width=max(abs(own - end), 0.5), **bar))
            parts.append(el("line", class_="axis", x1=own, x2=own, y1=y + 36, y2=y + 56))
        if rung.line is not None:
            x = frame.x(rung.line)
            parts.append(el("line", class_="zero", x1=x, x2=x, y1=y + 36, y2=y + 56))
    if named is not None:
        x = frame.x(named)
        left = x > (frame.left + frame.right) / 2
        parts += [
            el("line", class_="zero", x1=x, x2=x, y1=4, y2=top),
            el("text", f"{line} {named:.3f}", class_="halo", x=x + (-7 if left else 7), y=14, text_anchor="end" if left else "start"),
        ]
    return _svg(title, frame.bottom + 22, *parts)


def line_plot(curves: Mapping[str, Sequence[tuple[float, float]]], title: str, x_label: str, y_label: str = "") -> Html:
    """Curves of (x, y) over one axis, x from 0; `style` gives the classes of each, in order, for the legend."""
    points = [p for curve in curves.values() for p in curve]
    ys = [y for _, y in points]
    low, high = min(ys), max(ys)
    if low > 0 and low < 0.4 * high:
        low = 0
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    frame = Frame(0, max(1, *(x for x, _ in points)), low if low == 0 else low - pad, high + pad)
    parts: list[Child] = [_y_axis(frame, label=y_label), _x_axis(frame, 5, x_label)]
    for i, (name, curve) in enumerate(curves.items()):
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in curve)
        parts.append(el("polyline", el("title", name), class_=f"curve {style(i)}", points=path))
        if len(curve) == 1:
            parts.append(el("circle", class_=f"dot {style(i)}", cx=frame.x(curve[0][0]), cy=frame.y(curve[0][1]), r=3))
    return _svg(title, 252, *parts)


@dataclass(frozen=True)
class Point:
    """A place in a `point_plot`, with an interval of y where one is known. `each`: the values whose mean y is, where they are shown too."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    each: tuple[float, ...] = ()


def point_plot(
    points: Sequence[Point], title: str, x_label: str, y_label: str, *, log: bool = False, joined: bool = False, front: bool = False
) -> Html:
    """Points with their intervals, numbered in their order. `joined`: one line through all instead; `front`: a stair along those that no
    other point beats, which lies left of them and above. `log`: x above 0 on a logarithmic axis.
    """
    ys = [v for p in points for v in (p.y, p.low, p.high, *p.each) if v is not None]
    xs = [math.log10(p.x) if log else p.x for p in points]
    pad_y, pad_x = 0.12 * (max(ys) - min(ys)) or 0.02, 0.1 * (max(xs) - min(xs)) or 0.3
    frame = Frame(min(xs) - pad_x if log else 0, max(xs) + pad_x, min(ys) - pad_y, max(ys) + pad_y, bottom=252)
    at = [(frame.x(x), frame.y(p.y)) for x, p in zip(xs, points, strict=True)]
    parts: list[Child] = [_y_axis(frame, label=y_label), _log_axis(frame, x_label) if log else _x_axis(frame, 5, x_label)]
    if joined:
        parts.append(el("polyline", class_="curve c1 d1", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in at)))
    best = front_of([(p.x, p.y) for p in points])
    if front and len(best) > 1:
        stairs: list[tuple[float, float]] = []
        for i in best:
            stairs += [(at[i][0], y) for _, y in stairs[-1:]] + [at[i]]
        parts.append(el("polyline", class_="curve c3 d2", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in stairs)))
    for i, point in enumerate(points):
        (x, y), colour = at[i], "c1" if joined or not front or i in best else "c0"
        if point.low is not None and point.high is not None:
            parts.append(el("line", class_="axis", x1=x, x2=x, y1=frame.y(point.low), y2=frame.y(point.high)))
        parts += [el("circle", el("title", f"{value:.4f}"), class_="dot c0", cx=x, cy=frame.y(value), r=3.0) for value in point.each]
        parts.append(el("circle", el("title", f"{point.label}: {point.x:.3g}, {point.y:.4f}"), class_=f"dot {colour}", cx=x, cy=y, r=5.0))
    for i, (x, y) in enumerate([] if joined else _beside(at)):
        parts.append(el("text", str(i + 1), class_="halo strong", x=x, y=y, text_anchor="middle"))
    return _svg(title, 292, *parts)


def _beside(at: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where the number of each point stands: of the places around it the one farthest from every dot and number, the nearer one first."""
    taken, places = list(at), []
    for x, y in at:
        around = [
            (x + far * dx, y + far * dy)
            for far in (13, 22)
            for dx, dy in ((0.8, -0.7), (-0.8, -0.7), (0.8, 0.7), (-0.8, 0.7), (1, 0), (-1, 0))
        ]
        clear = [min(math.hypot(a - px, b - py) for px, py in taken) for a, b in around]
        best = next((i for i, room in enumerate(clear) if room > 12), clear.index(max(clear)))
        taken.append(around[best])
        places.append((around[best][0], around[best][1] + 4))
    return places


def front_of(places: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, score) that no other one beats at no more cost, by cost."""
    order = sorted(range(len(places)), key=lambda i: (places[i][0], -places[i][1]))
    best: list[int] = []
    for i in order:
        if not best or places[i][1] > places[best[-1]][1]:
            best.append(i)
    return best


def style(i: int) -> str:
    """Class names of the i-th series: colour and dash."""
    return f"c{i % 4 + 1} d{i // 4 % 3 + 1}"


def histogram(values: Sequence[float], title: str, x_label: str, *, lo: float = 0.0, hi: float = 1.0, bins: int = 20) -> Html:
    """Equal bins of lo..hi as bars, the median marked; bars below zero take the second colour."""
    counts = _count(values, lo, hi, bins)
    frame = Frame(lo, hi, 0, max(1, *counts) * 1.14)
    width = (hi - lo) / bins
    parts: list[Child] = [_y_axis(frame, whole=True, label="cases"), _x_axis(frame, 5, x_label)]
    for i, n in enumerate(counts):
        a, b = lo + i * width, lo + (i + 1) * width
        if n:
            top = min(frame.y(n), frame.bottom - 1)
            says = minus(f"{a:.2f} to {b:.2f}: {n}")
            colour = "c2" if b < width / 2 else "c1"
            bar = {"x": frame.x(a) + 0.75, "y": top, "width": frame.x(b) - frame.x(a) - 1.5, "height": frame.bottom - top}
            parts.append(el("rect", el("title", says), class_=f"bar {colour}", **bar))
    middle = statistics.median(values)
    x, left_of_it = frame.x(middle), middle > (lo + hi) / 2
    parts += [
        el("line", class_="zero", x1=x, x2=x, y1=frame.top, y2=frame.bottom),
        el("text", minus(f"median {middle:.3f}"), class_="halo", x=x + (-6 if left_of_it else 6), y=frame.top + 9,
           text_anchor="end" if left_of_it else "start"),
    ]  # fmt: skip
    return _svg(title, 252, *parts)


def reliability(bins: Sequence[tuple[float, float, int]], title: str) -> Html:
    """(mean confidence, observed frequency, pixels) per bin: the points against the diagonal, and below them the pixels, log scale."""
    filled = [(c, f, n) for c, f, n in bins if n > 0]
    decades = math.floor(math.log10(min(n for *_, n in filled))), math.floor(math.log10(max(n for *_, n in filled))) + 1
    frame = Frame(0, 1, 0, 1, bottom=228)
    strip = Frame(0, 1, *decades, top=258, bottom=306)
    parts: list[Child] = [
        _y_axis(frame, label="observed frequency"),
        _x_axis(frame, 5, named=False),
        _x_axis(strip, 5, "mean confidence of the bin"),
        el("text", "pixels in the bin, log scale", class_="tick", x=strip.left, y=strip.top - 8),
        *(el("text", tick_label(10.0**d, 10.0**d), class_="tick", x=strip.left - 6, y=strip.y(d) + 4, text_anchor="end") for d in decades),
        el("line", class_="zero", x1=frame.x(0), y1=frame.y(0), x2=frame.x(1), y2=frame.y(1)),
        el("polyline", class_="curve c1 d1", points=" ".join(f"{frame.x(c):.1f},{frame.y(f):.1f}" for c, f, _ in filled)),
    ]
    for confidence, frequency, n in filled:
        says = el("title", f"confidence {confidence:.3f}, observed {frequency:.3f}, {n:,} pixels")
        parts.append(el("circle", says, class_="dot c1", cx=frame.x(confidence), cy=frame.y(frequency), r=4.0))
        left = min(int(confidence * ECE_BINS), ECE_BINS - 1) / ECE_BINS
        x, y, width = strip.x(left) + 0.75, min(strip.y(math.log10(n)), strip.bottom - 2), (strip.right - strip.left) / ECE_BINS - 1.5
        parts.append(el("rect", says, class_="bar c1", x=x, y=y, width=width, height=strip.bottom - y))
    return _svg(title, 344, *parts)


# ---------------------------------------------------------------- parts


def _svg(title: str, height: float, *parts: Child) -> Html:
    return el("svg", *parts, viewBox=f"0 0 {WIDTH} {height:.0f}", role="img", aria_label=title)


def _x_axis(frame: Frame, n: int, label: str = "", *, named: bool = True) -> Html:
    marks = ticks(frame.x0, frame.x1, n)
    step = marks[1] - marks[0] if len(marks) > 1 else frame.x1 - frame.x0
    parts: list[Child] = []
    for value in marks:
        x = frame.x(value)
        anchor = "end" if x > WIDTH - 16 else "start" if x < 14 else "middle"
        parts.append(el("line", class_="grid", x1=x, x2=x, y1=frame.top, y2=frame.bottom))
        if named:
            parts.append(el("text", tick_label(value, step), class_="tick", x=x, y=frame.bottom + 17, text_anchor=anchor))
    parts.append(el("line", class_="axis", x1=frame.left, x2=frame.right, y1=frame.bottom, y2=frame.bottom))
    if label:
        parts.append(el("text", label, class_="tick", x=(frame.left + frame.right) / 2, y=frame.bottom + 35, text_anchor="middle"))
    return join(*parts)


def _log_axis(frame: Frame, label: str) -> Html:
    """1, 2 and 5 times each power of ten, or more where these are fewer than three; `frame.x` takes logarithms."""
    decades = [10.0**k for k in range(math.floor(frame.x0) - 1, math.ceil(frame.x1) + 1)]
    scales = [[m * decade for decade in decades for m in marks] for marks in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))]
    shown = ([v for v in scale if frame.x0 <= math.log10(v) <= frame.x1] for scale in scales)
    parts: list[Child] = []
    for value in next((few for few in shown if len(few) > 2), ticks(10**frame.x0, 10**frame.x1, 6)):
        x = frame.x(math.log10(value))
        parts.append(el("line", class_="grid", x1=x, x2=x, y1=frame.top, y2=frame.bottom))
        parts.append(el("text", f"{value:.4g}", class_="tick", x=x, y=frame.bottom + 17, text_anchor="middle"))
    parts.append(el("line", class_="axis", x1=frame.left, x2=frame.right, y1=frame.bottom, y2=frame.bottom))
    parts.append(el("text", label, class_="tick", x=(frame.left + frame.right) / 2, y=frame.bottom + 35, text_anchor="middle"))
    return join(*parts)


def _y_axis(frame: Frame, *, whole: bool = False, label: str = "") -> Html:
    marks = [v for v in ticks(frame.y0, frame.y1, 4) if not whole or v == int(v)]
    step = marks[1] - marks[0] if len(marks) > 1 else frame.y1 - frame.y0
    parts: list[Child] = []
    for value in marks:
        y = frame.y(value)
        parts += [
            el("line", class_="grid", x1=frame.left, x2=frame.right, y1=y, y2=y),
            el("text", tick_label(value, step), class_="tick", x=frame.left - 6, y=y + 4, text_anchor="end"),
        ]
    if label:
        parts.append(el("text", label, class_="halo tick", x=frame.left, y=frame.top - 5))
    return join(*parts)


def _count(values: Sequence[float], lo: float, hi: float, bins: int) -> list[int]:
    counts = [0] * bins
    for value in values:
        counts[min(max(int((value - lo) / (hi - lo) * bins + 1e-9), 0), bins - 1)] += 1
    return counts


def _short(text: str, most: int) -> str:
    """The text with its middle left out where it is long: names of one family differ at their ends."""
    half = (most - 1) // 2
    return text if len(text) <= most else text[: most - 1 - half] + "…" + text[-half:]
