"""log.jsonl: what a resume keeps of it, and what of it becomes the curves of a bundle."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from reportseg.run_log import RunLog


def test_a_line_stands_in_the_file_as_soon_as_it_is_added(tmp_path):
    log = RunLog(tmp_path / "log.jsonl", 0)
    assert (tmp_path / "log.jsonl").read_text() == "", "it is there before anything is measured"
    log.add(3, images=24, loss=0.12345678, alarm="gate")
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 3, "images": 24, "loss": 0.123457, "alarm": "gate"}
    assert log.rows == [{"step": 3, "images": 24, "loss": 0.123457, "alarm": "gate"}]


def test_a_resume_keeps_what_was_measured_up_to_its_step(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path, 0)
    for step in (1, 2, 3):
        log.add(step, images=8 * step, loss=1.0 / step)
    with path.open("a") as file:
        file.write('{"step": 2, "ima')  # a kill
    again = RunLog(path, 2)
    assert [row["step"] for row in again.rows] == [1, 2]
    again.add(3, images=24, loss=0.5)
    assert [json.loads(line) for line in path.read_text().splitlines()] == again.rows


@pytest.mark.parametrize("n", [1, 2, 199, 200, 201, 202, 399, 400, 401, 997])
def test_curves_have_at_most_200_points_the_last_among_them_and_only_numbers(tmp_path, n):
    log = RunLog(tmp_path / "log.jsonl", 0)
    log.add(0, images=0, placing=0.5)
    log.add(1, images=8, loss=float("nan"))
    for step in range(2, n + 2):
        log.add(step, images=8 * step, loss=float(step))
    log.add(n + 1, images=8 * n + 8, alarm="gate")
    curves = log.curves()
    assert set(curves) == {"placing", "loss"} and curves["placing"] == [(0, 0.5)]
    steps = [step for _, step in curves["loss"]]
    assert len(steps) == min(n, 200) and (steps[0], steps[-1]) == (2, n + 1) and steps == sorted(set(steps))
    assert curves["loss"][-1] == (8 * n + 8, n + 1)
    gaps = [b - a for a, b in pairwise(steps)]
    assert max(gaps, default=1) - min(gaps, default=1) <= 1, "evenly"
