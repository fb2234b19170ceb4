"""The section of report.html on how sure the answers are: calibration before and after its fit, and what rejecting the least sure gains."""

from __future__ import annotations

from collections.abc import Sequence

from .charts import line_plot, reliability, style
from .page import Html, cell, counted, el, figure, interval, join, minus, number, side_by_side, table
from .report_cases import swatch
from .schemas.metrics import Metrics
from .types import CaseScore
from .uncertainty import curves, told

MEASURES = {
    "uncertainty": ("Expected Dice", "1 minus the Dice to expect of the mask, if its probabilities are right"),
    "disagreement": ("Disagreement", "1 minus the mean Dice of the averaged answers with their average"),
    "area": ("Predicted area", "no probability is read: small masks are rejected first"),
    "random": ("Random", "no order at all: the mean risk"),
    "oracle": ("Oracle", "the true Dice: no measure can do better"),
}
POINTS = 120  # of a curve; more would not be seen


def uncertainty_section(metrics: Metrics, cases: Sequence[CaseScore], raw: Sequence[tuple[float, float, int]]) -> Html | None:
    """None where answers have no probabilities. `raw`: (mean confidence, observed frequency, pixels) per bin at temperature 1."""
    plots = [plot for plot in (_risk_plot(metrics, cases), _raw_plot(metrics, raw)) if plot]
    parts = [part for part in (_calibration(metrics), _measures(metrics), side_by_side(plots)) if part]
    return join(*parts) if parts else None


def _calibration(metrics: Metrics) -> Html | None:
    if metrics.ece_raw is None or metrics.decision is None:
        return None
    rows = [
        el("tr", el("th", name, scope="row"), cell(number(before)), cell(number(after)))
        for name, before, after in (
            ("All pixels", metrics.ece_raw, metrics.ece),
            ("Within 10 px of a true border", metrics.ece_border_raw, metrics.ece_border),
        )
    ]
    return join(
        el(
            "p",
            f"The logits are divided by {metrics.decision.temperature:.2f}, which was fitted on dev. "
            "Most pixels lie far from any border, where every model is right and sure; the borders tell more.",
        ),
        table(("ECE", "Temperature 1", "As answered"), rows, "Calibration before and after its fit", text={"ECE"}),
    )


def _measures(metrics: Metrics) -> Html | None:
    found = metrics.risk_coverage
    if found is None:
        return None
    rows = []
    for name in (name for name in MEASURES if name in found.aurc):
        title, says = MEASURES[name]
        gain, pair = found.gain_over_area.get(name), found.ci95.get(name)
        rows.append(
            el(
                "tr",
                el("th", title, el("span", says, class_="under"), scope="row"),
                cell(number(found.aurc[name]), None if pair is None else interval(pair)),
                cell() if gain is None else cell(minus(f"{gain[0]:+.4f}"), interval(gain[1:])),
            )
        )
    return join(
        el(
            "p",
            "If only the surest answers are kept and a person sees to the others, how large is the error that stays? The risk of a case is "
            f"1 minus its Dice; AURC is the mean risk over all shares that may be kept, lower is better. {counted(found.n_cases, 'case')}.",
        ),
        table(("What decides", "AURC", "Below predicted area by"), rows, "What rejection gains", text={"What decides"}),
    )


def _risk_plot(metrics: Metrics, cases: Sequence[CaseScore]) -> Html | None:
    if metrics.risk_coverage is None:
        return None
    lines = {}
    for name, risk in curves(told(cases)).items():
        picked = sorted({round(i * (len(risk) - 1) / POINTS) for i in range(POINTS + 1)})
        lines[name] = [((k + 1) / len(risk), float(risk[k])) for k in picked]
    legend = (el("li", swatch(style(i)), MEASURES[name][0]) for i, name in enumerate(lines))
    plot = line_plot(lines, "Risk and coverage", "share of cases kept, the surest first", "mean of 1 − Dice")
    says = "Mean of 1 minus Dice of the cases that are kept. Lower is better; at the right end all are kept."
    return figure("Risk and coverage", says, plot, el("ul", *legend, class_="key"))


def _raw_plot(metrics: Metrics, raw: Sequence[tuple[float, float, int]]) -> Html | None:
    if not any(n > 0 for *_, n in raw):
        return None
    says = join("The same pixels at temperature 1; as answered it stands under Distribution. ECE ", number(metrics.ece_raw), ".")
    return figure("Calibration before the fit", says, reliability(raw, "Calibration before the fit"))
