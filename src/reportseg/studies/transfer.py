"""`reportseg study transfer`: bundles on data that they were not trained on, beside the score on their own.

Nothing is fitted anew: weights, decision rule and words are the bundle's. The films differ, so the loss is not paired, and a data set may
be harder or be outlined otherwise: a loss is what a user of the bundle would see, not a fault of the model alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bundle import CONFIG, TRAINING, load_bundle, shipped
from ..cases import CASES, METRICS, read_cases
from ..data.manifest import Dataset, read_manifest
from ..engines import pick_device
from ..errors import InputError
from ..evaluate import evaluate
from ..limits import safe_id
from ..runs import alone
from ..schemas.base import read_json, write_json
from ..schemas.comparison import COMPARED
from ..schemas.metrics import Metrics
from ..schemas.studies import StudyPlan, TransferRow, TransferStudy
from ..schemas.training import TrainingFile
from ..scoring import hash_cases
from ..stats import N_BOOT
from .films import sentences_sha256
from .plan import Progress, begin, check_metric, no_repeats, now, remark, told
from .transfer_page import write_page

FILE, PAGE = "transfer.json", "transfer.html"
CONTROLS = ("shuffled",)


@dataclass(frozen=True)
class Trained:
    """A bundle and the data sets that it was trained on."""

    ref: str
    sha256: str
    column: str
    names: frozenset[str]


def transfer(
    named: Sequence[str | Path],
    *,
    out: str | Path,
    splits: Sequence[str] = ("val",),
    metric: str = "dice_mean",
    resume: bool = False,
    n_boot: int = N_BOOT,
    device: str = "auto",
    command: str = "",
    progress: Progress | None = None,
) -> TransferStudy:
    """Scores every bundle of `named` on every manifest of it; `splits` is one for all manifests, or one for each in their order.

    A manifest is a bundle's own where the bundle was trained on a data set of its name. Writes plan.json, eval/, transfer.html and
    transfer.json into `out`. InputError before anything is scored: too_few (no bundle, or no manifest), twice, split, metric, device,
    exists, plan, in_use, those of bundles and manifests; later cases_differ, for an evaluation in `out` that is of other films.
    """
    folder = Path(out)
    check_metric(metric)
    no_repeats([str(one) for one in named], "BUNDLE... MANIFEST...")
    refs = [str(one) for one in named if _is_bundle(str(one))]
    paths = [str(one) for one in named if not _is_bundle(str(one))]
    if not refs or not paths:
        what = "no bundle was named" if not refs else "no manifest was named"
        raise InputError(what, "BUNDLE... MANIFEST...", "Name one bundle or more, then one manifest or more.", "too_few")
    if len(splits) not in (1, len(paths)):
        fix = f"Give one for all, or {len(paths)} in the order of the manifests."
        raise InputError(f"{len(splits)} splits for {len(paths)} manifests", "--split", fix, "split")
    chosen = list(splits) * (len(paths) if len(splits) == 1 else 1)
    bundles = [_trained(ref) for ref in refs]
    datasets = [read_manifest(path) for path in paths]
    no_repeats([dataset.name for dataset in datasets], "BUNDLE... MANIFEST...")
    contents = {}
    for column in dict.fromkeys(bundle.column for bundle in bundles):
        for dataset, path, split in zip(datasets, paths, chosen, strict=True):
            read = dataset if column == "text" else read_manifest(path, text_column=column)
            contents[f"sentences of column {column} of {dataset.name}"] = sentences_sha256(read.split(split))
    films = {d.name: hash_cases(d.split(split)) for d, split in zip(datasets, chosen, strict=True)}
    plan = StudyPlan(
        kind="transfer", command=command, written=now(), metric=metric, arms=[dataset.name for dataset in datasets], split=",".join(chosen),
        bundles=[bundle.sha256 for bundle in bundles], films=films, contents=contents,
    )  # fmt: skip
    pick_device(device)  # refused before there is a plan
    begin(folder, plan, resume)
    # Names that are one as a folder, such as "x v1" and "X-v1", are told apart by the place of the manifest; all others need none.
    alike = len({safe_id(f"0-{dataset.name}").lower() for dataset in datasets}) < len(datasets)
    number = {dataset.name: f"{n}-" if alike else "" for n, dataset in enumerate(datasets)}
    with alone(folder):
        rows = []
        for i, bundle in enumerate(bundles):
            own: dict[str, float] = {}
            first = sorted(zip(datasets, paths, chosen, strict=True), key=lambda item: item[0].name not in bundle.names)
            for dataset, path, split in first:
                place = folder / "eval" / safe_id(f"{i}-{number[dataset.name]}{dataset.name}")
                if not (place / METRICS).exists():
                    remark(progress, f"bundle {i + 1} of {len(bundles)} on {dataset.name}")
                    evaluate(
                        bundle.ref, path, split=split, text_column=bundle.column, controls=CONTROLS, device=device, out=place, images=False,
                        n_boot=n_boot, command=command, progress=told(progress, "scoring"),
                    )  # fmt: skip
                row = _row(place, bundle, dataset, own)
                if row.cases_sha256 != films[dataset.name]:
                    fix = "Remove this folder and add --resume."
                    raise InputError(f"this evaluation is not of the films of {dataset.name}", place, fix, "cases_differ")
                own = row.scores if row.own and not own else own
                rows.append(row)
        study = TransferStudy(command=command, metric=metric, rows=rows, warnings=_warnings(rows, folder))
        write_page(folder / PAGE, study)
        write_json(folder / FILE, study)
    return study


def _is_bundle(name: str) -> bool:
    """A shipped or hub name, or a folder with a bundle's config.json; all else is a manifest."""
    return name.startswith("hf:") or (Path(name) / CONFIG).is_file() or (name in shipped() and not Path(name).exists())


def _trained(ref: str) -> Trained:
    bundle = load_bundle(ref)
    data = read_json(bundle.path / TRAINING, TrainingFile).config.get("data")
    column = data.get("text_column") if isinstance(data, dict) else None
    names = frozenset(source.name for source in bundle.config.trained_on)
    return Trained(ref, bundle.sha256, column if isinstance(column, str) and column else "text", names)


def _row(place: Path, bundle: Trained, dataset: Dataset, own: dict[str, float]) -> TransferRow:
    m, cases = read_json(place / METRICS, Metrics), read_cases(place / CASES)
    scores = {score: value for score in COMPARED if (value := getattr(m, score)) is not None}
    shuffled = m.controls["shuffled"].difference if "shuffled" in m.controls else {}
    return TransferRow(
        bundle=m.name or "bundle",
        bundle_sha256=bundle.sha256,
        seed=m.seed,
        data=dataset.name,
        own=dataset.name in bundle.names,
        split=m.split,
        cases_sha256=m.cases_sha256,
        n_cases=m.n_cases,
        n_patients=m.n_patients,
        scores=scores,
        ci95={score: m.ci95[score] for score in COMPARED if score in m.ci95},
        lost={} if dataset.name in bundle.names else {score: own[score] - value for score, value in scores.items() if score in own},
        shuffled={score: shuffled[score] for score in COMPARED if score in shuffled},
        codes=dict(Counter(code for case in cases for code in set(case.warnings))),
    )


def _warnings(rows: Sequence[TransferRow], folder: Path) -> list[str]:
    found = []
    with_own = {row.bundle_sha256 for row in rows if row.own}
    for sha, name in dict.fromkeys((row.bundle_sha256, row.bundle) for row in rows):
        if sha not in with_own:
            found.append(
                f"{name} ({sha[:8]}): none of the data sets bears the name of one that it was trained on, so nothing is lost against."
            )
    for row in rows:
        if failed := row.codes.get("failed", 0):
            found.append(f"{row.bundle} on {row.data}: {failed} cases failed and count as empty predictions.")
    return found
