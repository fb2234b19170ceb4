"""Scores a bundle, or anybody's mask files, on a split: metrics.json, cases.csv, report.html.

Beside its own sentence each film is asked those of the controls, which tell whether the text is read at all. What the text bought is told
by the twin, trained with one constant sentence; both comparisons are paired on the same cases.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from .cases import CASES, FAILURES, METRICS, read_cases, write_cases, write_failures
from .data.manifest import Dataset, read_manifest
from .data.negatives import opposites
from .data.splits import draw_dev, split_sha256
from .errors import InputError
from .io.png import write_mask
from .metrics import EMPTY_POLICY, TOLERANCE, count_policy
from .pictures import draw_cases
from .report import write_report
from .schemas.base import read_json, write_json
from .schemas.bundle import BundleConfig, DecisionConfig, TrainedOn
from .schemas.metrics import IntervalMethod, Metrics, Twin
from .schemas.training import TrainingFile
from .scoring import (
    Column,
    Mask,
    MaskSource,
    ModelSource,
    Result,
    Source,
    hash_cases,
    presence_cases,
    read_truth,
    score_films,
)
from .stats import N_BOOT, clusters, paired_bootstrap
from .text import CONSTANT, shuffled, swap_sides, swapped_rows
from .totals import control_scores, intervals, merged, risk_coverage, scores_of, subset_scores
from .twins import config_sha256, films_sha256, read_twin, twin_sha256
from .types import CaseScore, Sample
from .volume_scores import VOLUMES, Volumes, are_volumes, volume_scores, write_volumes

if TYPE_CHECKING:
    from .predict import Segmenter

REPORT = "report.html"
MASKS = "masks"  # folder of <id>.png, where they are saved
CONTROLS = ("original", "empty", "shuffled", "swapped-side")
PERMUTATIONS = 5  # of the shuffled control
NAMED = 20  # cases that a warning lists by name


def evaluate(
    bundle: str | os.PathLike[str] | Segmenter | None,
    manifest: str | Path,
    *,
    split: str = "test",
    text_column: str = "text",
    controls: Sequence[str] | None = None,
    twin: str | Path | None = None,
    masks: str | Path | None = None,
    with_: Sequence[str | os.PathLike[str]] = (),
    flips: bool | None = None,
    device: str = "auto",
    out: str | Path,
    images: bool = True,
    save_masks: bool = False,
    batch: int = 16,
    limit: int | None = None,
    n_boot: int = N_BOOT,
    overwrite: bool = False,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Scores `bundle` (or the files of the folder `masks`, see MaskSource) on a split of `manifest`, and writes its files into `out`.

    `flips` None: as the bundle was fitted; it and `device` as Segmenter.from_pretrained has them, for a bundle that is named. `controls`
    None takes those of the bundle's training; a text-free model, and masks, have none. `twin` is the folder of the twin's evaluation on the
    same cases. `images=False` keeps films and sentences out of the report. `save_masks` writes each answer to out/masks/<id>.png, for
    `compare` to show and for `masks` to read. `overwrite` replaces an evaluation and its saved masks. InputError before anything is
    computed: exists, options, unwritable, control, those of the manifest, of its masks, of the bundle and of the twin (cases_differ, twin);
    later only if no case at all can be scored. A case that fails is counted, and listed in failures.csv.
    """
    folder = Path(out)
    if limit is not None and limit < 1:
        raise InputError(f"of {limit} cases there is nothing to score", "--limit", "Give 1 or more, or leave it out.", "options")
    if (folder / METRICS).exists() and not overwrite:
        raise InputError("an evaluation lies there already", folder / METRICS, "Choose another folder, or --overwrite.", "exists")
    dataset = read_manifest(manifest, text_column=text_column)
    samples = dataset.split(split)[:limit]
    subject = _subject(bundle, masks, with_, flips, device, text_column, samples)
    texts = [CONSTANT if subject.constant else sample.text for sample in samples]
    plan = {name: control_texts(name, texts) for name in _control_names(controls, subject)}
    elsewhere = opposites(dataset.split(split), read_truth)[: len(samples)] if subject.reads_text else [None] * len(samples)
    digest = hash_cases(samples)
    twin_metrics, twin_cases = (None, None) if twin is None else _twin_of(subject, Path(twin), digest, {sample.id for sample in samples})
    read = {sample.mask.parent for sample in dataset.samples if sample.mask} | ({Path(masks)} if masks is not None else set())
    in_place = (folder / MASKS).resolve() in {place.resolve() for place in read}
    if save_masks and in_place:
        fix = "Choose another folder with -o, or leave out --save-masks."
        raise InputError("masks that this evaluation reads lie there already", folder / MASKS, fix, "options")

    _make(folder)
    if save_masks:
        _make(folder / MASKS)

    @cache
    def begin() -> None:  # once, before the first file
        _clear(folder, masks=save_masks and not in_place)

    def keep(id: str, mask_HW: Mask) -> None:
        begin()
        write_mask(folder / MASKS / f"{id}.png", mask_HW)

    volumes = Volumes(samples) if are_volumes(samples) else None
    spacing = all(sample.spacing_mm for sample in samples)
    columns: list[Column] = [texts, *(column for columns in plan.values() for column in columns), elsewhere]
    result = score_films(
        subject.source,
        samples,
        columns,
        text_name=subject.text,
        spacing=spacing,
        batch=batch,
        keep=keep if save_masks else None,
        gather=volumes.add if volumes else None,
        progress=progress,
    )
    own, rest = [one for one in result.columns[0] if one is not None], iter(result.columns[1:])
    cases = [one.case for one in own]
    controlled = {name: control_scores(name, texts, own, [next(rest) for _ in columns], n_boot) for name, columns in plan.items()}
    prompts = presence_cases(own, next(rest))
    raw = merged([one.raw for one in own])

    metrics = Metrics(
        command=command,
        name=_name(subject.training),
        bundle_sha256=subject.sha256,
        ensemble=list(subject.ensemble),
        config_sha256=config_sha256(subject.training, subject.config.parent if subject.config else None),
        model_sha256=_model_sha256(subject.training),
        twin_sha256=None if subject.training is None or subject.config is None else twin_sha256(subject.training, subject.config),
        films_sha256=films_sha256(subject.config) if subject.config else None,
        seed=subject.training.seed if subject.training else 0,
        cases_sha256=digest,
        split=split,
        n_cases=len(cases),
        n_patients=len({case.patient for case in cases} - {""}),
        decision=subject.decision,
        text=subject.text,
        hd95_unit="mm" if spacing else "px",
        nsd_tolerance=TOLERANCE,
        empty_policy=EMPTY_POLICY,
        counts=count_policy(cases),
        n_absent=sum(not case.present_truth for case in prompts),
        ci95=intervals(cases, prompts, n_boot),
        ci=IntervalMethod(n_boot=n_boot, clusters=len(set(clusters(cases))), without_patient=sum(not case.patient for case in cases)),
        controls=controlled,
        subsets=subset_scores(samples, own, prompts, n_boot),
        volumes=volume_scores(volumes.scored, n_boot) if volumes else {},
        volume_hd95_unit=None if volumes is None else "mm" if volumes.spacing else "px",
        twin=_twin(cases, spacing, twin_metrics, twin_cases, n_boot),
        ece_raw=raw.ece,
        ece_border_raw=raw.ece_border,
        risk_coverage=risk_coverage(cases, n_boot),
        warnings=_warnings(dataset, samples, subject, result, plan),
        images_per_s=(len(samples) - len(result.failures)) / subject.source.seconds if subject.source.seconds else None,
        **scores_of(own, prompts),
    )
    asked = {sample.id: text for sample, text in zip(samples, texts, strict=True)}
    begin()
    write_cases(folder / CASES, cases)
    if volumes:
        write_volumes(folder / VOLUMES, volumes.scored)
    write_failures(folder / FAILURES, result.failures)
    write_report(
        folder / REPORT,
        metrics,
        cases,
        training=subject.training,
        calibration=merged([one.calibration for one in own]).bins,
        raw=raw.bins,
        figures=draw_cases(subject.source, samples, asked, cases) if images else [],
        twin_cases=twin_cases,
        texts=asked if images else None,
    )
    write_json(folder / METRICS, metrics)
    return metrics


def _make(folder: Path) -> None:
    """An output that cannot be written shows now, not after an hour."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()  # one that is there already may be closed to writing
    except OSError as error:
        what = f"the folder cannot be made or written into ({error.strerror})"
        raise InputError(what, folder, "Choose another one.", "unwritable") from error


def _clear(folder: Path, *, masks: bool) -> None:
    """Removes what an evaluation before left and this one may not replace: metrics.json first, which is written last, so that where it
    lies the evaluation is whole. With `masks` those of its cases, and no other file in their folder.
    """
    try:
        (folder / METRICS).unlink(missing_ok=True)
        (folder / VOLUMES).unlink(missing_ok=True)
        ids: set[str] = set()
        with suppress(InputError):  # there is no table, or a damaged one
            ids = {case.id for case in read_cases(folder / CASES)} if masks else set()
        for file in [file for file in (folder / MASKS).glob("*.png") if file.stem in ids]:
            file.unlink()
    except OSError as error:
        raise InputError(f"a file cannot be replaced ({error.strerror})", folder, "Choose another folder.", "unwritable") from error


# ---------------------------------------------------------------- what is scored


@dataclass(frozen=True)
class _Subject:
    """`text` is what metrics.json calls the text: the column, or `constant` where the model reads no sentence or was trained with one."""

    source: Source
    text: str
    constant: bool = False
    sha256: str | None = None
    ensemble: tuple[str, ...] = ()
    decision: DecisionConfig | None = None
    training: TrainingFile | None = None
    trained_on: tuple[tuple[TrainedOn, TrainingFile], ...] = ()  # of all bundles
    config: BundleConfig | None = None

    @property
    def reads_text(self) -> bool:
        return not (self.constant or isinstance(self.source, MaskSource))


def _subject(
    bundle: str | os.PathLike[str] | Segmenter | None,
    masks: str | Path | None,
    with_: Sequence[str | os.PathLike[str]],
    flips: bool | None,
    device: str,
    text_column: str,
    samples: Sequence[Sample],
) -> _Subject:
    if masks is not None and bundle is None and not with_ and flips is None:
        return _Subject(MaskSource(Path(masks), samples), text_column)
    if bundle is None or masks is not None:
        raise InputError("either a bundle or a folder of masks is scored", "--masks", "Give one of the two.", "options")
    from .bundle import TRAINING, reads_text
    from .predict import Segmenter

    segmenter = (
        Segmenter.from_pretrained(bundle, with_=with_, flips=flips, device=device) if isinstance(bundle, str | os.PathLike) else bundle
    )
    trainings = [read_json(one.path / TRAINING, TrainingFile) for one in segmenter.bundles]
    reads = [reads_text(one.model, training) for one, training in zip(segmenter.bundles, trainings, strict=True)]
    return _Subject(
        ModelSource(segmenter),
        text_column if any(reads) else "constant",
        not any(reads),
        segmenter.sha256,
        segmenter.ensemble,
        segmenter.rule,
        trainings[0],
        tuple((source, own) for one, own in zip(segmenter.bundles, trainings, strict=True) for source in one.config.trained_on),
        segmenter.bundles[0].config,
    )


def _setting(training: TrainingFile | None, section: str, key: str) -> Any:
    """A value of the configuration that a bundle was trained with; None where it is not recorded."""
    values = training.config.get(section) if training else None
    return values.get(key) if isinstance(values, dict) else None


def _name(training: TrainingFile | None) -> str | None:
    name = training.config.get("name") if training else None
    return name if isinstance(name, str) and name else None


def _model_sha256(training: TrainingFile | None) -> str | None:
    from .models import section_sha256

    section = training.config.get("model") if training else None
    with suppress(InputError):  # a bundle need not tell what it was trained with
        return section_sha256(section) if isinstance(section, dict) else None
    return None


# ---------------------------------------------------------------- the controls


def _control_names(asked: Sequence[str] | None, subject: _Subject) -> list[str]:
    for name in asked or ():
        if name not in CONTROLS:
            near = difflib.get_close_matches(name, CONTROLS, 1)
            fix = f"Did you mean {near[0]}?" if near else f"There are {', '.join(CONTROLS)}."
            raise InputError(f"there is no control {name!r}", "--controls", fix, "control")
    if not subject.reads_text:
        return []
    trained = _setting(subject.training, "eval", "controls")
    names = asked if asked is not None else trained if isinstance(trained, list) else CONTROLS
    return [name for name in CONTROLS if name in names]


def control_texts(name: str, texts: Sequence[str]) -> list[Column]:
    """The sentences of a control, row by row, None for a row that it leaves out; the shuffled control has several such columns."""
    if name == "empty":
        return [[""] * len(texts)]
    if name == "shuffled":
        donors = [shuffled(texts, seed) for seed in range(PERMUTATIONS)]
        return [[None if row is None else texts[row] for row in permutation] for permutation in donors]
    if name == "swapped-side":
        rows = set(swapped_rows(texts))
        return [[swap_sides(text) if i in rows else None for i, text in enumerate(texts)]]
    return [list(texts)]


# ---------------------------------------------------------------- the twin, and what a reader must know


def _twin_of(subject: _Subject, folder: Path, digest: str, ids: set[str]) -> tuple[Metrics, list[CaseScore]]:
    """The twin's evaluation. InputError twin also where what is scored has none."""
    if subject.training is None or subject.config is None or not subject.reads_text or subject.ensemble:
        what = "an ensemble" if subject.ensemble else "a model that reads no text" if subject.training else "a folder of masks"
        raise InputError(f"{what} has no text-free twin", folder, "Leave out --twin, or score one bundle that reads.", "twin")
    return read_twin(folder, digest, ids, subject.training, subject.config, subject.decision)


def _twin(
    cases: Sequence[CaseScore], spacing: bool, metrics: Metrics | None, twin_cases: Sequence[CaseScore] | None, n_boot: int
) -> Twin | None:
    if metrics is None or twin_cases is None:
        return None
    difference = paired_bootstrap(cases, twin_cases, n_boot)
    if metrics.hd95_unit != ("mm" if spacing else "px"):  # the spacing was added to the manifest in between
        difference = {name: value for name, value in difference.items() if name not in ("hd95", "nsd")}
    return Twin(bundle_sha256=metrics.bundle_sha256, difference=difference)


def _seen(dataset: Dataset, split: str, subject: _Subject) -> list[str]:
    """A warning where the films are those that a bundle was trained on, or may be, since it knows a data set of this name."""
    named = False
    for source, training in subject.trained_on:
        if source.name != dataset.name:
            continue
        limit = _setting(training, "data", "limit")
        films = dataset.split(split)[: limit if isinstance(limit, int) else None]
        with suppress(InputError):  # films of one patient: no run trains on those
            dev = set(draw_dev(films, dataset.name))
            if split_sha256(film.id for film in films if film.id not in dev) == source.split_sha256:
                return ["This is the split that the bundle was trained on: the scores say nothing about new films."]
        named = named or split == (_setting(training, "data", "train") or "train")
    what = f"The bundle was trained on the split {split} of a data set of the same name, {dataset.name}, though not of the same films"
    return [f"{what}: it may have seen some of these."] if named else []


def _warnings(
    dataset: Dataset,
    samples: Sequence[Sample],
    subject: _Subject,
    result: Result,
    plan: Mapping[str, Sequence[Column]],
) -> list[str]:
    """What a reader of the scores must know."""
    n, split = len(samples), samples[0].split
    whole = len(dataset.split(split))
    train = _setting(subject.training, "data", "train") or "train"
    learnt = {source.name for source, _ in subject.trained_on}
    found = [f"Only the first {n} of the {whole} cases of the split were scored."] if n < whole else []
    found += _seen(dataset, split, subject)
    if split != train and (not learnt or dataset.name in learnt):  # of masks nobody says what their maker learnt from
        trained = {sample.patient for sample in dataset.samples if sample.split == train} - {""}
        shared = [sample.patient for sample in samples if sample.patient in trained]
        if shared:
            found.append(
                f"Patients shared with the split {train}: {len(set(shared))}, with {len(shared)} of the {n} cases; "
                "on patients who were never seen expect lower scores."
            )
    known = sum(sample.spacing_mm is not None for sample in samples)
    if 0 < known < n:
        found.append(f"A pixel spacing is stated in {known} of {n} rows only, so all distances are in pixels.")
    if result.off_grid:
        found.append(f"True masks on another grid than their film: {result.off_grid} of {n}; the predictions were brought to the masks'.")
    if "shuffled" in plan and (left_out := sum(text is None for text in plan["shuffled"][0])):
        found.append(
            f"The shuffled control leaves out {left_out} of {n} cases, since over half of the rows have one and the same sentence."
        )
    if result.failures:
        names = [f"{id} ({error.what.rstrip('.')}; {error.code})" for id, error in result.failures.items()]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        found.append(f"Scored as empty predictions, since they failed: {', '.join(names[:NAMED])}{more}. See {FAILURES}.")
    return found
