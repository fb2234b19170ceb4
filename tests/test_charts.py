"""Plots: round ticks, points where they belong, a name for those who cannot see them, hostile names harmless."""

from __future__ import annotations

import re

import pytest

from reportseg.charts import (
    WIDTH,
    Frame,
    Point,
    Rung,
    bar_plot,
    front_of,
    histogram,
    interval_plot,
    ladder_plot,
    line_plot,
    point_plot,
    reliability,
    style,
    tick_label,
    ticks,
)


def marks(svg: str) -> list[str]:
    return re.findall(r'<text class="tick"[^>]*>([^<]*)</text>', svg)


def numbers(svg: str, name: str) -> list[float]:
    return [float(v) for v in re.findall(rf' {name}="(-?[\d.]+)"', svg)]


def inside(svg: str) -> bool:
    height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', svg).group(1))
    points = [tuple(map(float, p.split(","))) for line in re.findall(r'points="([^"]*)"', svg) for p in line.split()]
    xs = numbers(svg, "x") + numbers(svg, "x1") + numbers(svg, "x2") + numbers(svg, "cx") + [x for x, _ in points]
    ys = numbers(svg, "y") + numbers(svg, "y1") + numbers(svg, "y2") + numbers(svg, "cy") + [y for _, y in points]
    return all(0 <= x <= WIDTH for x in xs) and all(0 <= y <= height for y in ys)


@pytest.mark.parametrize(
    ("lo", "hi", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 110000, [0, 20000, 40000, 60000, 80000, 100000]),
        (0.79, 0.9, [0.8, 0.82, 0.84, 0.86, 0.88, 0.9]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_within(lo, hi, expected):
    assert ticks(lo, hi) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "step", "label"),
    [(0.2, 0.2, "0.2"), (-0.5, 0.5, "−0.5"), (0, 0.02, "0"), (0.001, 0.0005, "0.0010"), (20000, 20000, "20k"), (1500, 500, "1.5k"),
     (100, 100, "100"), (2e6, 1e6, "2M"), (5, 5, "5")],
)  # fmt: skip
def test_tick_labels_have_the_decimals_of_their_step(value, step, label):
    assert tick_label(value, step) == label


def test_frame_maps_data_onto_its_corners():
    frame = Frame(-1, 1, 0, 10)
    assert (frame.x(-1), frame.x(1), frame.y(0), frame.y(10)) == (frame.left, frame.right, frame.bottom, frame.top)


@pytest.mark.parametrize(
    "svg",
    [
        interval_plot([("a", 0.5, 0.4, 0.6), ("b", 0.7, None, None)], "T"),
        interval_plot([("a", 0.2, 0.1, 0.3)], "T", differences=True),
        interval_plot([("a", 0.0, 0.0, 0.0)], "T", differences=True),
        bar_plot([("a", 1.0), ("b", 0.0)], "T"),
        line_plot({"loss": [(0, 1.5), (100, 0.5)], "one": [(50, 1.0)]}, "T", "images"),
        line_plot({"flat": [(0, 0.0), (10, 0.0)]}, "T", "images"),
        line_plot({"start": [(0, -2.0)]}, "T", "images"),
        histogram([0.0, 0.5, 1.0], "T", "Dice"),
        histogram([-0.2, 0.1], "T", "gain", lo=-0.3, hi=0.3, bins=40),
        reliability([(0.01, 0.0, 10**9), (0.5, 0.6, 1), (0.99, 1.0, 50)], "T"),
        reliability([(1.0, 1.0, 1)], "T"),
    ],
    ids=["intervals", "differences", "nothing", "bars", "curves", "flat", "point", "dice", "gains", "reliability", "one-bin"],
)
def test_every_plot_has_a_name_and_stays_within_itself(svg):
    assert svg.startswith("<svg viewBox=")
    assert 'role="img" aria-label="T"' in svg
    assert inside(svg)
    assert "nan" not in svg


class TestIntervals:
    def test_differences_have_signs_and_a_line_at_zero(self):
        svg = interval_plot([("empty", 0.09, 0.08, 0.1), ("shuffled", -0.02, -0.03, 0.01)], "T", differences=True)
        assert "+0.090 [0.080, 0.100]" in svg
        assert "−0.020 [−0.030, 0.010]" in svg
        assert svg.count('class="zero"') == 2

    def test_a_value_without_interval_has_only_its_dot(self):
        svg = interval_plot([("a", 0.5, None, None)], "T")
        assert ">0.500</text>" in svg
        assert 'class="range' not in svg
        assert svg.count("<circle") == 1

    def test_a_larger_value_lies_further_right(self):
        left, right = numbers(interval_plot([("a", 0.5, 0.4, 0.6), ("b", 0.7, 0.6, 0.8)], "T"), "cx")
        assert left < right

    def test_a_long_or_hostile_name_is_cut_and_escaped_and_whole_when_hovered(self):
        name = "<script>" + "x" * 60
        svg = interval_plot([(name, 0.5, 0.4, 0.6)], "T")
        assert "<script" not in svg
        assert "&lt;script&gt;xxxxxxxxx…xxxxxxxxxxxxxxxx<" in svg
        assert f"<title>&lt;script&gt;{'x' * 60}</title>" in svg


class TestBars:
    def test_a_bar_is_as_long_as_its_value(self):
        svg = bar_plot([("original", 0.8), ("empty", 0.4)], "T")
        first, second = (float(w) for w in re.findall(r'class="bar c\d" [^>]*width="([\d.]+)"', svg))
        assert first == pytest.approx(2 * second)
        assert re.findall(r">(0\.\d+)</text>", svg) == ["0.800", "0.400"]

    def test_the_first_bar_is_the_measure_of_the_others(self):
        assert bar_plot([("original", 0.8), ("empty", 0.4)], "T").count('class="zero"') == 1
        assert 'class="zero"' not in bar_plot([("original", 0.8)], "T")


class TestCurves:
    def test_axes(self):
        svg = line_plot({"dice": [(0, 0.1), (110000, 0.9)]}, "T", "images seen")
        assert {"0", "20k", "100k", "0.2", "0.8", "images seen"} <= set(marks(svg))

    def test_each_curve_has_its_own_style(self):
        assert len({style(i) for i in range(12)}) == 12
        assert f'class="curve {style(1)}"' in line_plot({"a": [(0, 1), (1, 2)], "b": [(0, 2), (1, 1)]}, "T", "x")


class TestHistogram:
    def test_counts(self):
        svg = histogram([0.0, 0.01, 0.5, 0.999, 1.0], "T", "Dice")
        assert re.findall(r"<title>([^<]*)</title>", svg) == ["0.00 to 0.05: 2", "0.50 to 0.55: 1", "0.95 to 1.00: 2"]
        assert "median 0.500" in svg

    def test_a_value_on_an_edge_belongs_to_the_bin_above(self):
        assert "<title>0.15 to 0.20: 1</title>" in histogram([0.15], "T", "Dice")

    def test_losses_have_another_colour_than_gains(self):
        svg = histogram([-0.25, 0.25], "T", "gain", lo=-0.3, hi=0.3)
        assert re.findall(r'class="bar (c\d)"', svg) == ["c2", "c1"]

    def test_axis_of_few_cases_has_whole_numbers(self):
        assert "0.5" not in marks(histogram([0.1], "T", "x", lo=0, hi=4))[:2]


class TestReliability:
    def test_empty_bins_are_left_out(self):
        svg = reliability([(float("nan"), float("nan"), 0), (0.5, 0.4, 1000)], "T")
        assert svg.count("<circle") == 1
        assert "confidence 0.500, observed 0.400, 1,000 pixels" in svg

    def test_pixels_are_drawn_on_a_log_scale_with_its_ends_named(self):
        svg = reliability([(0.1, 0.1, 10**6), (0.9, 0.9, 10**4)], "T")
        assert {"10k", "10M"} <= set(marks(svg))
        bars = [float(h) for h in re.findall(r'<rect class="bar c1"[^>]*height="([\d.]+)"', svg)]
        assert bars[0] == pytest.approx(48 * 2 / 3, abs=0.1)
        assert bars[1] == 2  # at the foot of the scale, and still to be seen


def test_a_ladder_shades_what_is_missing_and_names_its_line():
    rungs = [Rung("own", "as written", 0.8, 0.8, "c1", 0.7), Rung("<b>other</b>", "", 0.5, 0.8, "c0", 0.6)]
    svg = ladder_plot(rungs, "scores", "without text")
    assert svg.count('class="gap c2"') == 1 and "−0.300" in svg and "without text 0.700" in svg
    assert "<b>" not in svg
    first, second, named = re.findall(r'class="zero" x1="([\d.]+)"', svg)
    assert named == first and float(second) < float(first), "each row has its own"
    assert 'class="gap' not in ladder_plot(rungs[:1], "scores")


def test_the_front_is_what_nothing_else_beats():
    assert front_of([(1, 0.5), (2, 0.4), (2, 0.7), (3, 0.7), (4, 0.9)]) == [0, 2, 4]
    assert front_of([(1, 0.5)]) == [0]


def test_points_lie_inside_and_are_numbered():
    points = [Point("a", 0.1, 0.5, 0.4, 0.6), Point("b<i>", 10, 0.7)]
    svg = point_plot(points, "score over cost", "cost", "score", log=True, front=True)
    assert inside(svg) and "<i>" not in svg and ">1</text>" in svg and ">2</text>" in svg
    assert {"0.1", "1", "10", "cost"} <= set(marks(svg)) and ">score</text>" in svg
    assert inside(point_plot(points[:1], "one", "cost", "score", log=True)) and inside(
        point_plot(points, "curve", "films", "score", joined=True)
    )


def test_what_a_mean_is_made_of_lies_beside_it():
    svg = point_plot([Point("a", 10, 0.5, each=(0.1, 0.9)), Point("b", 20, 0.6)], "T", "films", "score", joined=True)
    assert inside(svg) and svg.count('r="3"') == 2 and svg.count("<circle") == 4
    top, bottom = sorted(numbers(svg, "cy"))[0], sorted(numbers(svg, "cy"))[-1]
    assert top < numbers(svg, "cy")[2] < bottom, "the axis has room for both"


@pytest.mark.parametrize("span", [(0.18, 0.34), (0.26, 0.4), (0.23, 0.32), (1.01, 1.02), (0.1, 0.9), (0.05, 40)])
def test_an_axis_of_logarithms_has_three_marks_or_more_however_short_it_is(span):
    svg = point_plot([Point("a", span[0], 0.5), Point("b", span[1], 0.6)], "T", "cost", "score", log=True)
    found = [float(m) for m in re.findall(r'y="269"[^>]*>([^<]*)</text>', svg)]
    assert 2 < len(found) == len(set(found)) < 12 and inside(svg)


def test_numbers_of_neighbours_do_not_lie_upon_each_other():
    points = [Point(str(i), 1 + 0.01 * (i % 3), 0.8 + 0.002 * (i // 3)) for i in range(6)] + [Point("far", 10, 0.5)]
    svg = point_plot(points, "T", "cost", "score", log=True)
    dots = list(zip(numbers(svg, "cx"), numbers(svg, "cy"), strict=True))
    found = re.findall(r'class="halo strong" x="([\d.]+)" y="([\d.]+)"[^>]*>(\d)<', svg)
    places = [(float(x), float(y)) for x, y, _ in found]
    assert [n for *_, n in found] == list("1234567")
    assert min(abs(a - c) + abs(b - d) for i, (a, b) in enumerate(places) for c, d in places[:i]) > 8
    assert all(abs(a - x) + abs(b - y) < 35 for (a, b), (x, y) in zip(places, dots, strict=True))


def test_a_band_ends_at_the_mark():
    assert 'class="band"' in interval_plot([("a", 0.01, 0.0, 0.02)], "t", differences=True, mark=0.003)
    assert 'class="band"' not in interval_plot([("a", 0.01, 0.0, 0.02)], "t", differences=True)
