"""From the scores of films to the numbers of metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .metrics import Calibration, summarise
from .schemas.metrics import ControlScores, RiskCoverage, SubsetScores
from .scoring import Scored
from .stats import bootstrap, bootstrap_rows, paired_bootstrap_mean
from .text import normalise
from .types import CaseScore, Sample
from .uncertainty import aurc, told

PRESENCE = ("presence_auroc", "absent_correct")


def merged(films: Sequence[Calibration]) -> Calibration:
    """One calibration over the pixels of all films."""
    whole = Calibration()
    for one in films:
        whole.merge(one)
    return whole


def scores_of(scored: Sequence[Scored], prompts: Sequence[CaseScore] | None = None) -> dict[str, Any]:
    """The fields of `schemas.metrics.Scores`. `prompts` are those that tell of presence; None: the cases themselves."""
    cases, calibration = [one.case for one in scored], merged([one.calibration for one in scored])
    presence = summarise(cases if prompts is None else prompts)
    scores = {**summarise(cases), **{name: presence[name] for name in PRESENCE}}
    return {**scores, "ece": calibration.ece, "ece_border": calibration.ece_border}


def intervals(cases: Sequence[CaseScore], prompts: Sequence[CaseScore], n_boot: int) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each score; `prompts` are those that tell of presence."""
    masks, presence = bootstrap(cases, n_boot), bootstrap(prompts, n_boot)
    return {name: pair for name, pair in masks.items() if name not in PRESENCE} | {
        name: pair for name, pair in presence.items() if name in PRESENCE
    }


def subset_scores(samples: Sequence[Sample], own: Sequence[Scored], prompts: Sequence[CaseScore], n_boot: int) -> dict[str, SubsetScores]:
    """The scores of each subset that a film names."""
    members: dict[str, list[Scored]] = {}
    for sample, one in zip(samples, own, strict=True):
        for name in sample.subsets:
            members.setdefault(name, []).append(one)
    found = {}
    for name, some in sorted(members.items()):
        cases = [one.case for one in some]
        ids = {case.id for case in cases}
        asked = [case for case in prompts if case.id in ids]
        found[name] = SubsetScores(n_cases=len(some), ci95=intervals(cases, asked, n_boot), **scores_of(some, asked))
    return found


def risk_coverage(cases: Sequence[CaseScore], n_boot: int) -> RiskCoverage | None:
    """None where fewer than two answers say how sure they are, as masks made by other code."""
    some = told(cases)
    if len(some) < 2:
        return None

    def scores(rows: Sequence[int]) -> dict[str, float]:
        found = aurc([some[row] for row in rows])
        gains = {f"gain {name}": found["area"] - found[name] for name in ("uncertainty", "disagreement") if name in found}
        return found | gains

    value, drawn = scores(range(len(some))), bootstrap_rows(some, scores, n_boot)
    names = [name.removeprefix("gain ") for name in value if name.startswith("gain ")]
    return RiskCoverage(
        n_cases=len(some),
        aurc={name: value[name] for name in value if not name.startswith("gain ")},
        ci95={name: pair for name, pair in drawn.items() if not name.startswith("gain ")},
        gain_over_area={name: (value[f"gain {name}"], *drawn[f"gain {name}"]) for name in names if f"gain {name}" in drawn},
    )


def control_scores(
    name: str, texts: Sequence[str], own: Sequence[Scored], columns: Sequence[Sequence[Scored | None]], n_boot: int
) -> ControlScores:
    """Scores and paired differences, the mean over the columns; each is compared on the cases that it has."""
    kept = [[(a, b) for a, b in zip(own, column, strict=True) if b is not None] for column in columns]
    scores = [scores_of([b for _, b in pairs]) for pairs in kept]
    known = {key: [value for one in scores if (value := one[key]) is not None] for key in scores[0]}
    empty = sum(not normalise(text) for text in texts)
    return ControlScores(
        n_cases=len(kept[0]),
        n_changed={"original": 0, "empty": len(texts) - empty}.get(name, len(kept[0])),
        difference=paired_bootstrap_mean([([a.case for a, _ in pairs], [b.case for _, b in pairs]) for pairs in kept], n_boot),
        **{key: float(np.mean(values)) if values else None for key, values in known.items()},
    )
