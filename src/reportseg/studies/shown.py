"""What the terminal shows of a study: one line for each thing that was set side by side."""

from __future__ import annotations

from ..schemas import Ablation, TextStudy
from .ablate_page import name
from .pages import points
from .text_page import answer


def ablation_lines(study: Ablation) -> list[str]:
    """The verdict on each change."""
    full = study.arms[0].scores[study.metric]
    lines = [f"{study.metric} of the full configuration {full:.4f}"]
    width = max(len(name(arm)) for arm in study.arms)
    for arm in study.arms[1:]:
        effect = arm.effect.get(study.metric)
        lines.append(f"{name(arm):<{width}}  {arm.verdict or 'not told':<14} {points(effect) if effect else ''}".rstrip())
    return lines


def text_lines(study: TextStudy) -> list[str]:
    """The score under each sentence, then what that says."""
    width = max(len(row.name) for row in study.rows)
    lines = [
        f"{row.name:<{width}}  {row.scores[study.metric]:.4f}  {row.n_cases} cases" for row in study.rows if study.metric in row.scores
    ]
    return [*lines, answer(study)]
