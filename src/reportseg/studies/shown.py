"""What the terminal shows of a study: one line for each thing that was set side by side."""

from __future__ import annotations

from ..schemas.studies import Ablation, CostStudy, DataStudy, TextStudy, TransferStudy
from . import ablate_page, cost_page, text_page, transfer_page
from .pages import points


def ablation_lines(study: Ablation) -> list[str]:
    """The verdict on each change."""
    full = study.arms[0].scores.get(study.metric)
    lines = [f"{study.metric} of the full configuration {'–' if full is None else f'{full:.4f}'}; what each change takes away:"]
    width = max(len(ablate_page.name(arm)) for arm in study.arms)
    for arm in study.arms[1:]:
        effect, says = arm.effect.get(study.metric), "failed" if arm.failed else arm.verdict or "not told"
        lines.append(f"{ablate_page.name(arm):<{width}}  {says:<14} {points(effect, 2) if effect else ''}".rstrip())
    return lines


def text_lines(study: TextStudy) -> list[str]:
    """The score under each sentence, then what that says."""
    width = max(len(row.name) for row in study.rows)
    lines = [
        f"{row.name:<{width}}  {row.scores[study.metric]:.4f}  {row.n_cases} cases" for row in study.rows if study.metric in row.scores
    ]
    return [*lines, text_page.answer(study)]


def data_lines(study: DataStudy) -> list[str]:
    """The score of each share."""
    lines = []
    for one in study.shares:
        between = " [{:.3f}, {:.3f}]".format(*one.ci95[study.metric]) if study.metric in one.ci95 else ""
        reached = f"{one.scores[study.metric]:.4f}{between}" if one.runs else "failed"
        lines.append(f"{100 * one.share:>5g} %  {one.n_films:>7,} films  {study.metric} {reached}")
    return lines


def transfer_lines(study: TransferStudy) -> list[str]:
    """The score of each bundle on each data set."""
    lines = []
    for row in study.rows:
        between = " [{:.3f}, {:.3f}]".format(*row.ci95[study.metric]) if study.metric in row.ci95 else ""
        own = " (its own data)" if row.own else ""
        lines.append(f"{transfer_page.name(row, study)} on {row.data}{own}: {study.metric} {row.scores[study.metric]:.4f}{between}")
    return lines


def cost_lines(study: CostStudy) -> list[str]:
    """Parameters, and multiples of the U-Net's operations and times."""
    width = max(len(cost_page.name(row)) for row in study.rows)
    lines = [f"{'':<{width}}  {'params':>12} {'trainable':>12} {'flops':>7} {'batch 1':>8} {'batch 8':>8} {'training':>9}"]
    for row in study.rows:
        ratios = [row.ratios[key] for key in ("flops", "latency_1_s", "latency_8_s", "train_time")]
        shown = " ".join(f"{value:>{room}.3f}" for value, room in zip(ratios, (7, 8, 8, 9), strict=True))
        lines.append(f"{cost_page.name(row):<{width}}  {row.params['total']:>12,} {row.params['trainable']:>12,} {shown}")
    return [*lines, "operations and times as multiples of the U-Net's"]
