"""`reportseg study ablate`: what each part of a configuration is worth, by training with and without it.

Every arm has the same seeds, films, order of films, schedule and precision, so that a difference is the part's own. Metric, seeds and the
smallest effect of interest are written down before the first training; published effects of such parts are 0.1 to 0.5 points, so a verdict
that came from looking would mean nothing. `helps`: the interval of the effect lies above 0. `does not help`: its upper bound is below the
smallest effect of interest. Else `undecided`, which is a full answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from ..config import RunConfig, load_config
from ..errors import InputError
from ..models import check, count_parameters, resolve
from ..runs import alone
from ..schemas.base import Difference, read_json, write_json
from ..schemas.comparison import COMPARED
from ..schemas.studies import Ablation, AblationArm, StudyPlan, Verdict
from ..schemas.training import TrainingFile
from ..stats import MIN_SEEDS, N_BOOT, holm, paired_bootstrap, paired_bootstrap_runs, wilcoxon_runs
from .ablate_page import write_page
from .films import own_manifest, read_films
from .plan import SMALLEST, Progress, begin, check_metric, no_repeats, now, remark, stored
from .training import Arm, Trained, alike, described, planned, run_arms, run_warnings, scored_fields, seed_warnings, sources

FILE, PAGE = "ablate.json", "ablate.html"
_TESTED = {"dice_mean": "dice", "iou_mean": "iou", "nsd": "nsd"}  # Wilcoxon is for scores that each film has
_NO_FIGURES = {"lr", "norm", "images_per_s"}


def ablate(
    source: str | Path,
    overrides: Sequence[str],
    *,
    out: str | Path,
    seeds: Sequence[int] = (0, 1),
    metric: str = "dice_mean",
    smallest: float = SMALLEST,
    manifest: str | Path | None = None,
    split: str = "val",
    resume: bool = False,
    device: str = "auto",
    n_boot: int = N_BOOT,
    command: str = "",
    progress: Progress | None = None,
) -> Ablation:
    """Trains the configuration `source` and one arm for each override of `model.*` or `data.text`; other overrides are for all arms.

    Writes plan.json before the first training, then runs/, eval/, ablate.html and ablate.json into `out`.
    InputError before anything is trained: change (none, or one without effect), twice, options (no seed, smallest), metric, minutes,
    split, exists, plan, in_use, those of the configurations and of the data.
    """
    folder = Path(out)
    check_metric(metric)
    if not seeds or not 0 < smallest < 1:
        what = "no seed was given" if not seeds else f"the smallest effect of interest is a fraction of 1 above 0, not {smallest:g}"
        raise InputError(what, "--seeds" if not seeds else "--smallest", "As in --seeds 0,1 --smallest 0.003.", "options")
    no_repeats(seeds, "--seeds")
    before = stored(folder, resume)
    changes = [item for item in overrides if _is_arm(item)]
    no_repeats(changes, "-s")
    shared = [item for item in overrides if not _is_arm(item)]
    full, *changed = _configs(source, shared, changes)
    full = alike(full, before, device)
    configs = [full, *(config.model_copy(update={"train": full.train}) for config in changed)]
    films = read_films(full, manifest, split)
    plan = StudyPlan(
        kind="ablate", command=command, written=now(), metric=metric, smallest=smallest, seeds=list(seeds), arms=changes, split=split,
        config=planned(full), films=films.hashes, contents=films.contents(full.data.text_column),
        sources=sources(full, films, [{sample.id for sample in films.train}]),
    )  # fmt: skip
    begin(folder, plan, resume)
    more = _takes_more(full, changed, changes)
    for warning in more:
        remark(progress, f"warning: {warning}")  # before hours are spent on it
    with alone(folder):
        read = own_manifest(films, folder / "data", films.split_of)
        names = ["full", *changes]
        arms = [Arm(f"{i}-{_short(name)}", name, config, read) for i, (name, config) in enumerate(zip(names, configs, strict=True))]
        runs = run_arms(arms, seeds, split, folder, device=device, n_boot=n_boot, command=command, progress=progress)
        told = [_describe(arm, own, runs[0], folder, metric, smallest, n_boot) for arm, own in zip(arms, runs, strict=True)]
        tested = [i for i, one in enumerate(told) if one.p is not None]
        for i, p in zip(tested, holm([told[i].p or 0.0 for i in tested]), strict=True):
            told[i] = told[i].model_copy(update={"p_holm": p})
        warnings = [*more, *seed_warnings(seeds), *run_warnings(names, runs)]
        study = Ablation(
            command=command, name=configs[0].name, metric=metric, smallest=smallest, seeds=list(seeds), arms=told, warnings=warnings,
            **scored_fields(runs, n_boot),
        )  # fmt: skip
        write_page(folder / PAGE, study)
        write_json(folder / FILE, study)
    return study


def verdict(effect: Difference | None, smallest: float) -> Verdict | None:
    """From (value, lower, upper) of full minus changed; None without an interval."""
    if effect is None:
        return None
    return "helps" if effect[1] > 0 else "does not help" if effect[2] < smallest else "undecided"


# ---------------------------------------------------------------- arms


def _is_arm(item: str) -> bool:
    """The model's keys and the twin's are what an ablation is about; seed, data and schedule are one for all arms."""
    key = item.partition("=")[0].strip()
    return key.startswith("model.") or key == "data.text"


def _configs(source: str | Path, shared: Sequence[str], changes: Sequence[str]) -> list[RunConfig]:
    """The full configuration, then each change. InputError: change, and those of a configuration."""
    if not changes:
        fix = "Give one or more, as in -s model.vlcm.enabled=false."
        raise InputError("no change of the model was given", "-s", fix, "change")
    configs = [resolve(load_config(source, [*shared, *extra])) for extra in ([], *([change] for change in changes))]
    full = configs[0]
    for change, config in zip(changes, configs[1:], strict=True):
        if (config.model, config.data) == (full.model, full.data):
            fix = "Leave it out, or look at the configuration with `reportseg config show`."
            raise InputError("this changes nothing: the configuration has it already", f"-s {change}", fix, "change")
        check(config.model)
    check(full.model)
    return configs


def _takes_more(full: RunConfig, changed: Sequence[RunConfig], changes: Sequence[str]) -> list[str]:
    """A warning of each arm that loses more than the part it names. Without TMCA's enhancement there is nothing that its pixel term could
    train, and what plain deep supervision gains would be booked as the enhancement's.
    """
    part = full.model.get("ltem", {})
    if not (part.get("enabled") and part.get("pixel_loss")):
        return []
    return [
        f"{change} takes the pixel term away too, which is deep supervision: the effect is that of both. For the enhancement alone no arm "
        "may have the term: reportseg config show CONFIG -s model.ltem.pixel_loss=false > base.yaml, then ablate base.yaml."
        for change, config in zip(changes, changed, strict=True)
        if not config.model.get("ltem", {}).get("enabled", True)
    ]


def _short(change: str) -> str:
    return change.removeprefix("model.")[:60]


# ---------------------------------------------------------------- numbers


def _describe(arm: Arm, own: Trained, full: Trained, folder: Path, metric: str, smallest: float, n_boot: int) -> AblationArm:
    """Everything but Holm's adjustment, which needs all of them. Without all seeds of both there are differences, and no verdict."""
    base = AblationArm(
        change=None if own is full else arm.says,
        params=count_parameters(arm.config.model),
        figures=_figures([folder / "runs" / run.folder.name for run in own.runs]),
        **described(own, n_boot),
    )
    if own is full:
        return base
    of_full, of_own = ({run.metrics.seed: run.cases for run in one.runs} for one in (full, own))
    pairs = {seed: (cases, of_own[seed]) for seed, cases in of_full.items() if seed in of_own}
    alone_ = {seed: paired_bootstrap(a, b, n_boot).get(metric) for seed, (a, b) in pairs.items()}
    base = base.model_copy(update={"by_seed": {seed: one for seed, one in alone_.items() if one is not None}})
    if own.failed or full.failed:
        return base
    ours, theirs = [a for a, _ in pairs.values()], [b for _, b in pairs.values()]
    effect = paired_bootstrap_runs(ours, theirs, same_seeds=True, n_boot=n_boot)
    can_test = metric in _TESTED and bool(effect) and (len(pairs) == 1 or len(pairs) >= MIN_SEEDS)
    return base.model_copy(
        update={
            "effect": {score: effect[score] for score in COMPARED if score in effect},
            "verdict": verdict(effect.get(metric), smallest),
            "p": wilcoxon_runs(ours, theirs, _TESTED[metric]) if can_test else None,
        }
    )


def _figures(runs: Sequence[Path]) -> dict[str, float]:
    """The last logged value of each curve of the training, mean over the runs."""
    last: dict[str, list[float]] = {}
    for run in runs:
        for name, curve in read_json(run / "bundle" / "training.json", TrainingFile).curves.items():
            if curve and name not in _NO_FIGURES:
                last.setdefault(name, []).append(curve[-1][1])
    return {name: fmean(values) for name, values in last.items()}
