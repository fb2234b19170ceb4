"""`reportseg study text`: what the sentences bought, and which part of them.

One bundle answers the same films under their own sentences, under none, under those of other films, with the sides exchanged, and under
every further column of the manifest, such as a paraphrase or a shorter prompt. What the text bought is told by the twin, which was trained
with one constant sentence; all others tell what this model does with a sentence that it reads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median_low

from ..bundle import TRAINING, load_bundle, reads_text
from ..cases import METRICS
from ..compare import Run, read_runs
from ..data.manifest import Dataset, read_manifest
from ..engines import pick_device
from ..errors import InputError
from ..evaluate import CONTROLS, control_texts, evaluate
from ..limits import safe_id
from ..metrics import summarise
from ..page import counted
from ..runs import alone
from ..schemas.base import read_json, write_json
from ..schemas.comparison import COMPARED
from ..schemas.metrics import ControlScores, Metrics
from ..schemas.studies import StudyPlan, TextRow, TextStudy
from ..schemas.training import TrainingFile
from ..scoring import hash_cases
from ..stats import N_BOOT, paired_bootstrap
from ..text import normalise
from ..twins import read_twin
from ..types import Sample
from .films import sentences_sha256
from .plan import Progress, begin, check_metric, no_repeats, now, remark, told
from .text_page import write_page
from .training import scored_by

FILE, PAGE = "text.json", "text.html"
ORIGINAL = "original"


def text(
    bundle: str | os.PathLike[str],
    manifest: str | Path,
    *,
    out: str | Path,
    split: str = "val",
    columns: Sequence[str] = (),
    twin: str | Path | None = None,
    metric: str = "dice_mean",
    resume: bool = False,
    n_boot: int = N_BOOT,
    device: str = "auto",
    command: str = "",
    progress: Progress | None = None,
) -> TextStudy:
    """Scores `bundle` under the sentences of its own column, the controls, and `columns`; `twin` is the evaluation folder of the twin.

    Writes plan.json, eval/, text.html and text.json into `out`. InputError before anything is scored: no_text (a bundle that reads none),
    metric, twice, device, exists, plan, in_use, those of the bundle, of the manifest under each column and of the twin.
    """
    folder = Path(out)
    check_metric(metric)
    no_repeats(columns, "--text-columns")
    loaded = load_bundle(bundle)
    training = read_json(loaded.path / TRAINING, TrainingFile)
    if not reads_text(loaded.model, training):
        fix = "Name the bundle that reads, and this one's evaluation with --twin."
        raise InputError("this bundle reads no text", str(bundle), fix, "no_text")
    column = _column(training)
    if column in columns:
        raise InputError(f"the column {column!r} is the original", "--text-columns", "Leave it out.", "twice")
    datasets = {name: read_manifest(manifest, text_column=name) for name in (column, *columns)}
    films = datasets[column].split(split)
    digest, bundles = hash_cases(films), [loaded.sha256]
    if twin is not None:
        ids = {sample.id for sample in films}
        other, _ = read_twin(Path(twin), digest, ids, training, loaded.config, loaded.config.decision)
        bundles += [other.bundle_sha256] if other.bundle_sha256 else []
    plan = StudyPlan(
        kind="text", command=command, written=now(), metric=metric, arms=[column, *columns], split=split, bundles=bundles,
        films={"scored": digest},
        contents={f"sentences of column {name}": sentences_sha256(dataset.split(split)) for name, dataset in datasets.items()},
    )  # fmt: skip
    pick_device(device)  # refused before there is a plan
    begin(folder, plan, resume)
    places = {name: folder / "eval" / safe_id(f"{i}-{name}") for i, name in enumerate(datasets)}
    with alone(folder):
        for name, place in places.items():
            if (place / METRICS).exists():
                continue
            remark(progress, f"column {name}")
            evaluate(
                bundle, manifest, split=split, device=device, text_column=name, controls=CONTROLS if name == column else (), twin=twin,
                out=place, images=False, n_boot=n_boot, command=command, progress=told(progress, "scoring"),
            )  # fmt: skip
        own, *others = read_runs([*places.values(), *([Path(twin)] if twin is not None else [])])
        free = others.pop() if twin is not None else None
        sentences = [sample.text for sample in films]
        rows = [_original(own, sentences), *_controls(own)]
        for name, run in zip(columns, others, strict=True):
            row = _row(name, "column", own, run, n_boot, *_changed(datasets[name], split, sentences))
            rows.append(row.model_copy(update={"words": _words([sample.text for sample in datasets[name].split(split)])}))
        if free is not None:
            rows.append(_row("twin", "twin", own, free, n_boot, len(sentences), 0))
            rows = [row.model_copy(update={"twin": _without_text(free, films, row)}) for row in rows]
        fields = scored_by(own, n_boot)
        study = TextStudy(
            command=command, name=own.metrics.name or "bundle", metric=metric, bundle_sha256=loaded.sha256, seed=own.metrics.seed,
            column=column, rows=rows, warnings=[*own.metrics.warnings, *_unknown(columns, others)], **fields,
        )  # fmt: skip
        write_page(folder / PAGE, study)
        write_json(folder / FILE, study)
    return study


def _column(training: TrainingFile) -> str:
    """The column that the bundle was trained on."""
    data = training.config.get("data")
    name = data.get("text_column") if isinstance(data, dict) else None
    return name if isinstance(name, str) and name else "text"


def _changed(dataset: Dataset, split: str, own: Sequence[str]) -> tuple[int, int]:
    """Sentences that are others than the film's own, and those that are empty."""
    texts = [normalise(sample.text) for sample in dataset.split(split)]
    return sum(a != normalise(b) for a, b in zip(texts, own, strict=True)), sum(not text for text in texts)


# ---------------------------------------------------------------- rows


def _scores(scores: object) -> dict[str, float]:
    return {score: value for score in COMPARED if (value := getattr(scores, score)) is not None}


def _unknown(columns: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """A column of words that the weights never saw is no test of what it says."""
    counts = {name: sum("out_of_vocabulary" in case.warnings for case in run.cases) for name, run in zip(columns, runs, strict=True)}
    says = "of many words that were never seen in training, which may count against it"
    return [f"{name}: {counted(n, 'sentence')} {says}." for name, n in counts.items() if n]


def _words(texts: Sequence[str]) -> int:
    return median_low(len(text.split()) for text in texts)


def _original(own: Run, texts: Sequence[str]) -> TextRow:
    scores = _scores(own.metrics)
    n = own.metrics.n_cases
    return TextRow(name=ORIGINAL, kind="original", n_cases=n, n_changed=0, words=_words(texts), scores=scores, own=scores, loss={})


def _controls(own: Run) -> list[TextRow]:
    """The controls of the evaluation; on fewer cases the film's own sentence is scored on these too, which the paired loss tells."""
    rows = []
    for name, control in own.metrics.controls.items():
        if name == ORIGINAL:
            continue
        scores = _scores(control)
        n_cases = own.metrics.n_cases if control.n_cases is None else control.n_cases
        rows.append(
            TextRow(
                name=name,
                kind="control",
                n_cases=n_cases,
                n_changed=control.n_changed,
                n_empty=n_cases if name == "empty" else 0,
                scores=scores,
                own=_own(control, own.metrics),
                loss={score: control.difference[score] for score in COMPARED if score in control.difference},
            )
        )
    return rows


def _own(control: ControlScores, metrics: Metrics) -> dict[str, float]:
    if control.n_cases in (None, metrics.n_cases):
        return _scores(metrics)
    return {score: value + control.difference[score][0] for score, value in _scores(control).items() if score in control.difference}


def _without_text(twin: Run, films: Sequence[Sample], row: TextRow) -> dict[str, float]:
    """The twin's scores on the cases of a row. Where a control leaves cases out, those that are left may be harder than all."""
    cases = {case.id: case for case in twin.cases}
    columns = control_texts(row.name if row.kind == "control" else ORIGINAL, [film.text for film in films])
    found = [summarise([cases[film.id] for film, text in zip(films, column, strict=True) if text is not None]) for column in columns]
    known = {score: [value for one in found if (value := one[score]) is not None] for score in COMPARED}
    return {score: fmean(values) for score, values in known.items() if values}


def _row(name: str, kind: str, own: Run, other: Run, n_boot: int, n_changed: int, n_empty: int) -> TextRow:
    loss = paired_bootstrap(own.cases, other.cases, n_boot)
    return TextRow.model_validate(
        {
            "name": name,
            "kind": kind,
            "n_cases": own.metrics.n_cases,
            "n_changed": n_changed,
            "n_empty": n_empty,
            "scores": _scores(other.metrics),
            "own": _scores(own.metrics),
            "loss": {score: loss[score] for score in COMPARED if score in loss},
        }
    )
