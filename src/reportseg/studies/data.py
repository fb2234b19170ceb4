"""`reportseg study data`: the score over the number of training films.

Each share is whole patients and holds every smaller one, so that the curve shows more films and not other films. The schedule is one for
all: a small share is seen more often. dev is a tenth of the share, as for somebody who has no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config import load_config
from ..data.splits import nested_shares
from ..errors import InputError
from ..models import check, resolve
from ..runs import alone
from ..schemas.base import write_json
from ..schemas.comparison import COMPARED
from ..schemas.studies import DataShare, DataStudy, StudyPlan
from ..stats import N_BOOT, paired_bootstrap_runs
from .curve_page import write_page
from .films import LEFT_OUT, Films, own_manifest, read_films
from .plan import Progress, begin, check_metric, no_repeats, now, stored
from .training import Arm, Trained, alike, described, planned, run_arms, run_warnings, scored_fields, seed_warnings, sources

FILE, PAGE = "data.json", "data.html"
SHARES = (0.1, 0.25, 0.5, 1.0)


def data(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    out: str | Path,
    shares: Sequence[float] = SHARES,
    seeds: Sequence[int] = (0,),
    metric: str = "dice_mean",
    manifest: str | Path | None = None,
    split: str = "val",
    resume: bool = False,
    device: str = "auto",
    n_boot: int = N_BOOT,
    command: str = "",
    progress: Progress | None = None,
) -> DataStudy:
    """Trains the configuration `source` on each of `shares` of the training films with each seed, and scores it on `split`.

    Writes plan.json before the first training, then data/, runs/, eval/, data.html and data.json into `out`.
    InputError before anything is trained: shares, twice, seeds, metric, limit, minutes, split, exists, plan, in_use, those of the
    configuration and of the data.
    """
    folder = Path(out)
    check_metric(metric)
    shares = sorted(shares)
    no_repeats(shares, "--shares")
    no_repeats(seeds, "--seeds")
    if len(shares) < 2 or not 0 < shares[0] <= shares[-1] <= 1:
        raise InputError("shares are two or more fractions above 0, to 1", "--shares", "As in 0.1,0.25,0.5,1.", "shares")
    if not seeds:
        raise InputError("no seed was given", "--seeds", "As in 0,1.", "seeds")
    config = alike(resolve(load_config(source, overrides)), stored(folder, resume), device)
    check(config.model)
    if config.data.limit is not None:
        raise InputError("data.limit and a share would both choose films", "data.limit", "Set it to null.", "limit")
    films = read_films(config, manifest, split)
    kept = nested_shares(films.train, films.dataset.name, shares)
    plan = StudyPlan(
        kind="data", command=command, written=now(), metric=metric, seeds=list(seeds), arms=[f"{share:g}" for share in shares], split=split,
        config=planned(config), films=films.hashes, contents=films.contents(config.data.text_column),
        sources=sources(config, films, [set(ids) for ids in kept]),
    )  # fmt: skip
    begin(folder, plan, resume)
    with alone(folder):
        arms = []
        for share, ids in zip(shares, kept, strict=True):
            read = own_manifest(films, folder / "data" / f"{share:g}", _splits(films, ids))
            arms.append(Arm(f"{share:g}", f"share {share:g}, {len(ids)} films", config, read))
        runs = run_arms(arms, seeds, split, folder, device=device, n_boot=n_boot, command=command, progress=progress)
        told = [_describe(share, films, ids, own, runs[-1], n_boot) for share, ids, own in zip(shares, kept, runs, strict=True)]
        warnings = [*seed_warnings(seeds), *run_warnings([f"share {share:g}" for share in shares], runs)]
        study = DataStudy(
            command=command, name=config.name, metric=metric, seeds=list(seeds), images=config.train.images, shares=told, warnings=warnings,
            **scored_fields(runs, n_boot),
        )  # fmt: skip
        write_page(folder / PAGE, study)
        write_json(folder / FILE, study)
    return study


def _splits(films: Films, ids: Sequence[str]) -> dict[str, str]:
    """The training films that are not in the share are left out."""
    there = set(ids)
    return {**films.split_of, **{sample.id: LEFT_OUT for sample in films.train if sample.id not in there}}


def _describe(share: float, films: Films, ids: Sequence[str], own: Trained, largest: Trained, n_boot: int) -> DataShare:
    there = set(ids)
    gap = (
        {}
        if own is largest or own.failed or largest.failed
        else paired_bootstrap_runs([run.cases for run in own.runs], [run.cases for run in largest.runs], same_seeds=True, n_boot=n_boot)
    )
    return DataShare(
        share=share,
        n_films=len(ids),
        n_patients=len({sample.patient for sample in films.train if sample.id in there} - {""}),
        gap={score: gap[score] for score in COMPARED if score in gap},
        **described(own, n_boot),
    )
