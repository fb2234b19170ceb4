"""docs/bench.md from what lies in results/bench-cpu and results/bench-gpu: every score on it is read there.

python benchmarks/bench_page.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import bench_cost
from figures import beside
from output import table
from reportseg.charts import Row, interval_plot
from reportseg.limits import atomic_write
from reportseg.report_numbers import NAMES as SAID
from reportseg.schemas.base import load_json

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "bench.md"
CLIMBING = 0.005  # over the last fifth of the images: a curve that rises, or falls, by more is marked
SMALLEST = 0.003  # effect of interest
METRIC = "dice_mean"  # of the verdicts
FAILED = "failed.json"  # of a cell whose training diverged
NAMES = {
    "tgcnet": "TGC-Net",
    "tgcnet_twin": "TGC-Net, text-free twin",
    "unet": "U-Net",
    "tmca": "TMCA",
    "tmca_twin": "TMCA, text-free twin",
    "lvit": "LViT",
    "languidemedseg": "LanGuideMedSeg",
    "mmiunet": "MMI-UNet",
    "resenc_unet": "ResEnc U-Net",
}
REFERENCES = ("tgcnet", "tmca")
PEERS = ("unet", "languidemedseg", "lvit", "mmiunet", "resenc_unet")
FULL = {"tgcnet_half": "TGC-Net", "tmca_half": "TMCA"}
#: The arm that lacks a module: the module, and the arm that has it and is else the same.
MODULES = {
    "tgcnet_half_no_cnn": ("SSE's CNN branch", "tgcnet_half"),
    "tgcnet_half_no_knowledge": ("DATE's knowledge", "tgcnet_half"),
    "tgcnet_half_no_vlcm": ("VLCM", "tgcnet_half"),
    "tmca_half_no_soft_targets": ("soft targets of the semantic distance", "tmca_half"),
    "tmca_half_no_alignment": ("alignment at four levels", "tmca_half"),
    "tmca_half_no_enhancement": ("target enhancement, without its pixel term", "tmca_half_no_pixel_term"),
    "tmca_half_no_pixel_term": ("pixel term of the enhancement", "tmca_half"),
}
#: Figures of the training that hint at whether a module did what it is there for, and what they are.
MECHANISMS = {
    "tgcnet_half_no_cnn": {"dev_auroc_u4": "AUROC of words and places, stride 4"},
    "tgcnet_half_no_knowledge": {"dev_auroc_r": "AUROC of sentence and patches"},
    "tgcnet_half_no_vlcm": {"dev_auroc_S4": "AUROC of the calibrated S, stride 4", "dev_auroc_u4": "of u, which it calibrates"},
    "tmca_half_no_soft_targets": {"target_cosine_8": "cosine of targets of different sentences, stride 8"},
    "tmca_half_no_alignment": {"dev_auroc_A8": "AUROC of A, stride 8"},
    "tmca_half_no_enhancement": {"dev_auroc_A8": "AUROC of A, stride 8"},
    "tmca_half_no_pixel_term": {"dev_auroc_A8": "AUROC of A, stride 8"},
}
SCORES = ("dice_pooled", "dice_mean")
NONE = "–"

HEAD = """# The bench

**This ranks architectures without pretraining; it does not rank the published models.** Every weight begins random, sizes are cut to
what a CPU trains, and pretrained towers, which the papers build on, have no part. What a method gains with them is not told here.

`benchmarks/bench.py` writes this page from `results/`, cell by cell. A cell is one method under one seed:
`results/bench-cpu/CELL/metrics.json` has its scores, intervals and text controls (none where no text is read); `cell.json` beside it
has the configuration, the commit, the curves on dev and the command that makes it again, with the name of the data set for its folder.
"""

CPU = """
## On a CPU

```bash
make bench-cpu DATA=qata                       # goes on after a stop
make bench-cpu DATA=qata MINUTES=60 CELLS=tgcnet,unet-0
python benchmarks/bench.py cpu qata --list     # done, and to do
```
"""

RULES = """
### Rules

- **Size**: at most 7 M parameters in all. The peers at their preset `cpu`, one factor on the widths of their published image side and
  decoder (LanGuideMedSeg 3/8, LViT 7/16, MMI-UNet 1/3, ResEnc U-Net 9/32), the words read by one small tower that all share; U-Net at
  width 30 of 64; TGC-Net and TMCA, whose published sizes are not known, at `small`. That favours these two: their depths were chosen
  for such a size, and TMCA's ConvNeXt has an overlapping stem from scratch; the peers' are those of their papers. All give logits at
  stride 2.
- **Films**: QaTa-COV19, half of the training films, the same for all: whole patients in an order that the data set's name seeds. A
  tenth of them is dev. Trained at 112 px, scored on val, 1,429 films, each on its own grid of 224 px. 112 is no multiple of 32:
  where a map has seven places a side, its half has four.
- **Training**: all weights, from random initialisation, on 24,000 images in batches of 32; augmentation, optimiser and schedule are
  those of the recipes `*_qata_small`. A method that reads text places its sentences before the first film, in 400 steps of 128 sentences
  and their masks without images (`train.text_steps`), whatever the number of images; a twin, which reads one sentence, does not. The
  speed and the time in `cell.json` begin with the first film.
- **Learning rate**: for each method the best of three on a quarter of the images and the first seed, by the sum of both Dice scores on
  dev. A twin, and a method that lacks a module, have the rate of their method.
- **Seeds**: 0 and 1. Both are shown; an interval is over patients, about these two runs, and says nothing of a third. Films without a
  known patient, 597 of the 1,429, count as one each, so that the width of an interval is a lower bound.
- **Made again**: where a recipe has changed, or what a model computes on a made-up batch, the bench stops until its cells are deleted.
  Augmentation, training loop and scoring are not watched in that way.
- **Marks**: `climbing` where a Dice score on dev still rose by more than 0.5 points over the last fifth of the images, so more of them
  would have helped; `falling` where it fell by as much; `end of the grid` where the best rate is the lowest or the highest of the three;
  `seed N diverged` where that training ended in a loss that is not finite. Such a method has no rank and stands below the others: the
  seeds that are left would flatter it. Why it ended is told under *Cells*.
"""

MODULE_TEXT = """
### Modules, at half the images

12,000 images for the full method and for each that lacks a module; seeds, films, order and learning rate are the same. Decided before
any was run: metric dice_mean, seeds 0 and 1, smallest effect of interest 0.3 points. *Helps*: the interval of with minus without lies
above 0. *Does not help*: its upper bound is below 0.003. *Undecided*: neither, and that is a full answer. The target enhancement is
judged where neither method has its pixel term, which falls away with it; else the term's gain would count twice. There is no verdict
before both seeds have been run. *Mechanism* is what training logged last, with the module and, where such a thing is left, without it: a
hint at whether the module did what it is there for. AUROC: cells inside the masks of dev against cells outside. `cell.json` has all such
figures.
"""

GPU = """
## On an accelerator

```bash
make bench-gpu DATA=qata CELLS=tgcnet                  # one cell at a time, or all
```

The same methods, sizes and rules at 224 px, logits at stride 4, all training films, 160,000 images (31 epochs), one seed, without the
modules.
"""


def write(page: Path, results: Path) -> None:
    """The page, and its figures in the folder images beside it."""
    atomic_write(page, text(results))
    for bench in ("bench-cpu", "bench-gpu"):
        for name, drawn in (
            (bench, picture(results / bench)),
            (f"{bench}-cost", bench_cost.picture(results / bench, reached(results / bench))),
        ):
            if drawn is not None:
                (page.parent / "images").mkdir(exist_ok=True)
                atomic_write(page.parent / "images" / f"{name}.svg", drawn)


def picture(folder: Path) -> str | None:
    """Every method that has a rank, the mean over its seeds with the interval, as SVG; in the order of the table. None before there are
    two.
    """
    rows: dict[str, list[Row]] = {score: [tuple(one) for one in reached(folder, score).values()] for score in SCORES}
    if len(rows[SCORES[0]]) < 2:
        return None
    order = sorted(range(len(rows[SCORES[0]])), key=lambda i: -rows[SCORES[0]][i][1])
    return beside({SAID[score]: interval_plot([found[i] for i in order], SAID[score]) for score, found in rows.items()})


def reached(folder: Path, score: str = METRIC) -> dict[str, bench_cost.Reached]:
    """By arm, of every method that has a rank, the mean over its seeds with the interval."""
    cells, failed = _read(folder)
    told = load_json(folder / "table.json")["arms"] if cells else {}
    found = {}
    for arm, name in NAMES.items():
        scored = [metrics for cell, (metrics, _) in cells.items() if _arm(cell) == arm]
        if scored and arm not in map(_arm, failed):
            interval = told.get(arm, {}).get("ci95", {}).get(score, (None, None))
            found[arm] = bench_cost.Reached(name, fmean(metrics[score] for metrics in scored), *interval)
    return found


def text(results: Path) -> str:
    """The page. `results` holds bench-cpu and bench-gpu; either may be missing or half done."""
    return "".join([HEAD, CPU, _bench(results / "bench-cpu", RULES, modules=True), GPU, _bench(results / "bench-gpu", modules=False)])


def _read(folder: Path) -> tuple[dict[str, tuple[Any, Any]], dict[str, Any]]:
    """By cell: metrics.json and cell.json of those with scores, failed.json of those without."""
    cells = {path.parent.name: (load_json(path), load_json(path.parent / "cell.json")) for path in sorted(folder.glob("*/metrics.json"))}
    failed = {path.parent.name: load_json(path) for path in sorted(folder.glob(f"*/{FAILED}")) if path.parent.name not in cells}
    return cells, failed


def _arm(cell: str) -> str:
    return cell.rpartition("-")[0]


def _bench(folder: Path, rules: str = "", *, modules: bool) -> str:
    """What was found, then the rules that it was found by, then what lies behind it."""
    cells, failed = _read(folder)
    if not cells and not failed:
        return "\nNo cell has been run yet.\n" + rules
    protocol, search, told = (load_json(folder / f"{name}.json") for name in ("protocol", "search", "table"))
    of = {arm: [cells[cell] for cell in cells if _arm(cell) == arm] for arm in (*NAMES, *FULL, *MODULES)}
    where = f"{protocol['precision']} on {protocol['on']}, {_counted(protocol['threads'], 'thread')}"
    on = f"\n{protocol['train_films']:,} training films, dev among them; {where}.\n"
    lost = {arm: [failed[cell] for cell in failed if _arm(cell) == arm] for arm in of}
    differences = _differences(told["differences"], of, [arm for arm in NAMES if lost[arm]])
    parts = [on, _methods(of, lost, told, search, folder.name), differences, bench_cost.section(folder, reached(folder))]
    if modules:
        parts += [MODULE_TEXT, _modules(of, told, protocol["seeds"])]
    return "".join([*parts, rules, _rates(search, len(protocol["rates"]), _methods_of(cells)), _cells(cells, failed)])


def _methods(of: dict[str, list[Any]], lost: dict[str, list[Any]], told: dict[str, Any], search: dict[str, Any], bench: str) -> str:
    """`of` and `lost` by arm: the cells that have scores, and those that diverged. `bench` names the figure."""
    heads = [
        "method",
        "M parameters",
        "seeds",
        "dice_pooled",
        "dice_mean",
        "shuffled sentences",
        "marks",
    ]
    ranked, unranked = list[list[str]](), list[list[str]]()
    for arm, name in NAMES.items():
        facts = [cell for _, cell in of[arm]] + lost[arm]
        if not facts:
            continue
        intervals = told["arms"].get(arm, {})
        seeds = [cell["seed"] for _, cell in of[arm]]
        ci95 = intervals.get("ci95", {}) if intervals.get("seeds") == seeds else {}
        scores = [_score([metrics[score] for metrics, _ in of[arm]], ci95.get(score)) if of[arm] else NONE for score in SCORES]
        shuffled = [metrics["controls"]["shuffled"]["dice_pooled"] for metrics, _ in of[arm] if "shuffled" in metrics["controls"]]
        marks = _marks([cell for _, cell in of[arm]])
        marks += ["end of the grid"] * _at_the_end(search.get(facts[0]["method"], {}))
        marks += [f"seed {cell['seed']} diverged" for cell in lost[arm]]
        row = [
            name,
            f"{facts[0]['params'] / 1e6:.2f}",
            ", ".join(map(str, seeds)) or NONE,
            *scores,
            f"{fmean(shuffled):.4f}" if shuffled else NONE,
        ]
        (unranked if lost[arm] else ranked).append([*row, ", ".join(marks)])
    order = [*sorted(ranked, key=lambda row: row[3], reverse=True), *unranked]
    says = "\n### Methods\n\nBy dice_pooled: the mean over the seeds, its interval, and each seed's."
    says += " What is equal for all, and what the marks mean, is told under *Rules*.\n\n"
    shown = f"![Both Dice scores of every method, with intervals](images/{bench}.svg)\n\n" if len(ranked) > 1 else ""
    return says + shown + table(heads, order)


def _differences(told: dict[str, Any], of: dict[str, list[Any]], diverged: Sequence[str] = ()) -> str:
    """Each reference minus every other method on both scores, and in a sentence whether it is above all peers. `of`: the cells by arm.
    Arms in `diverged` lack a seed, so that nothing is said of them.
    """
    said, rows = [], []
    for one in REFERENCES:
        minus = {arm: told[one][arm] for arm in NAMES if arm in told.get(one, {}) and not {one, arm} & set(diverged)}
        said += [_above(one, minus, diverged)] if any(arm in PEERS for arm in minus) else []
        for arm, effect in minus.items():
            if arm in REFERENCES[: REFERENCES.index(one)]:  # told already, the other way round
                continue
            seeds = ", ".join(map(str, effect["seeds"]))
            effects = (_difference(effect.get(score)) + _by_seed(of, one, arm, effect["seeds"], score) for score in SCORES)
            rows.append([NAMES[one], NAMES[arm], seeds, *effects])
    if not rows:
        return ""
    says = "Paired by film and seed: the mean over the seeds, its interval, and each seed's run minus the other's of that seed.\n\n"
    return "\n### Differences\n\n" + "".join(f"{line}\n\n" for line in said) + says + table(["method", "minus", "seeds", *SCORES], rows)


def _above(one: str, minus: dict[str, Any], diverged: Sequence[str]) -> str:
    """Whether a method is above every peer on both scores; which it is not above, and by how much."""
    found = [(arm, score, minus[arm][score]) for arm in PEERS if arm in minus for score in SCORES if score in minus[arm]]
    below = [f"{NAMES[arm]} ({score} {_difference(effect)})" for arm, score, effect in found if effect[0] <= 0]
    unsure = [f"{NAMES[arm]} ({score} {_difference(effect)})" for arm, score, effect in found if effect[0] > 0 >= effect[1]]
    missing = [NAMES[arm] for arm in PEERS if arm not in minus and arm not in diverged]
    fell = [NAMES[arm] for arm in PEERS if arm in diverged]
    whom = "every peer that has been scored" if fell else "every peer"
    if missing:
        whom = f"every peer that has been {'scored' if fell else 'run'} ({', '.join(NAMES[arm] for arm in PEERS if arm in minus)})"
    parts = [f"**{NAMES[one]} is {'not ' if below else ''}above {whom} on both scores**"]
    seeds = {seed for effect in minus.values() for seed in effect["seeds"]}
    parts[0] += f", by seed {min(seeds)} alone" if len(seeds) == 1 else ""
    parts[0] += f": not above {', '.join(below)}" if below else ""
    parts += [f"above, though the interval holds 0: {', '.join(unsure)}"] * bool(unsure)
    parts += [f"not yet run: {', '.join(missing)}"] * bool(missing)
    parts += [f"diverged: {', '.join(fell)}"] * bool(fell)
    return "; ".join(parts) + "."


def _methods_of(cells: dict[str, tuple[Any, Any]]) -> list[str]:
    return list(dict.fromkeys(facts["method"] for _, facts in cells.values()))


def _rates(search: dict[str, Any], wanted: int, run: Sequence[str]) -> str:
    """Scores on dev by rate; the methods that were `run` by a search that no longer counts are named."""
    rates = sorted({rate for tried in search.values() for rate in tried}, key=float)
    rows = []
    for method, tried in search.items():
        best = _best(tried) if len(tried) == wanted else None
        shown = {
            rate: "diverged" if one[SCORES[0]] is None else " / ".join(f"{one[score]:.4f}" for score in SCORES)
            for rate, one in tried.items()
        }
        rows.append([NAMES[method], *(f"**{shown[rate]}**" if rate == best else shown.get(rate, NONE) for rate in rates)])
    says = "\n### Learning rates\n\ndice_pooled / dice_mean on dev after a quarter of the images; the rate in bold is that of the cells."
    if left := [NAMES[method] for method in run if len(search.get(method, {})) < wanted]:
        says += f" To be searched again, for a change of the code, before further cells: {', '.join(left)}."
    says += "\n\n"
    return says + table(["method", *(f"{float(rate):g}" for rate in rates)], rows)


def _modules(of: dict[str, list[Any]], told: dict[str, Any], planned: Sequence[int]) -> str:
    """A row for each module that has been taken away, with a verdict where all `planned` seeds have been run."""
    heads = ["module", "of", "seeds", "with minus without, dice_mean", "dice_pooled", "dice_mean with it", "verdict", "mechanism", "marks"]
    rows = []
    for arm, (name, full) in MODULES.items():
        minus = told["differences"].get(full, {}).get(arm)
        if minus is None:
            continue
        paired = {one: [cell for cell in of[one] if cell[1]["seed"] in minus["seeds"]] for one in (arm, full)}
        marks = _marks([cell for _, cell in paired[arm] + paired[full]])
        effects = [_difference(minus.get(score)) + _by_seed(of, full, arm, minus["seeds"], score) for score in (METRIC, SCORES[0])]
        reached = f"{fmean(metrics[METRIC] for metrics, _ in paired[full]):.4f}"
        seeds = ", ".join(map(str, minus["seeds"]))
        method = next(says for half, says in FULL.items() if full.startswith(half))
        said = verdict(minus.get(METRIC)) if minus["seeds"] == planned else "not yet"
        rows.append([name, method, seeds, *effects, reached, said, _mechanism(arm, paired[full], paired[arm]), ", ".join(marks)])
    return "\n" + (table(heads, rows) if rows else "No module has been taken away yet.\n")


def _mechanism(arm: str, with_it: Sequence[Any], without: Sequence[Any]) -> str:
    parts = []
    for figure, says in MECHANISMS[arm].items():
        logged = {"with": with_it, "without": without}
        values = {which: [cell["figures"][figure] for _, cell in cells if figure in cell["figures"]] for which, cells in logged.items()}
        parts.append(f"{says}: {', '.join(f'{fmean(found):.3f} {which}' for which, found in values.items() if found) or NONE}")
    return "; ".join(parts)


def _cells(cells: dict[str, Any], failed: dict[str, Any]) -> str:
    rows = []
    for cell, (metrics, facts) in cells.items():
        rise = " / ".join(NONE if facts["climb"][score] is None else f"{100 * facts['climb'][score]:+.1f}" for score in SCORES)
        scores = [f"{metrics[score]:.4f}" for score in SCORES]
        rows.append(
            [
                f"`{cell}`",
                f"{facts['images']:,}",
                f"{facts['lr']:g}",
                *scores,
                rise,
                f"{facts['seconds'] / 60:.0f}",
                facts["commit"][:8] if facts["commit"] else NONE,
            ]
        )
    for cell, facts in failed.items():
        commit = facts["commit"][:8] if facts["commit"] else NONE
        rows.append([f"`{cell}`", f"{facts['images']:,}", f"{facts['lr']:g}", f"diverged: {facts['why']}", NONE, NONE, NONE, commit])
    heads = ["cell", "images", "rate", "dice_pooled", "dice_mean", "rise, points", "minutes", "commit"]
    return "\n### Cells\n\nRise: of both scores on dev over the last fifth of the images.\n\n" + table(heads, rows)


# ---------------------------------------------------------------- parts


def verdict(effect: Sequence[float] | None) -> str:
    """From (value, lower, upper) of with minus without."""
    if effect is None:
        return NONE
    return "helps" if effect[1] > 0 else "does not help" if effect[2] < SMALLEST else "undecided"


def _best(tried: dict[str, Any]) -> str:
    return max(tried, key=lambda rate: sum(tried[rate][score] or 0.0 for score in SCORES))


def _at_the_end(tried: dict[str, Any]) -> bool:
    """Whether a rate outside of the grid might have been better still."""
    rates = sorted(tried, key=float)
    return bool(rates) and _best(tried) in (rates[0], rates[-1])


def _climbing(cell: dict[str, Any]) -> bool:
    return any(rise is not None and rise > CLIMBING for rise in cell["climb"].values())


def _marks(cells: Sequence[dict[str, Any]]) -> list[str]:
    return ["climbing"] * any(map(_climbing, cells)) + ["falling"] * any(map(_falling, cells))


def _falling(cell: dict[str, Any]) -> bool:
    return any(rise is not None and rise < -CLIMBING for rise in cell["climb"].values())


def _score(values: Sequence[float], interval: Sequence[float] | None) -> str:
    """The mean, its interval, and each where there are several."""
    each = f" ({', '.join(f'{value:.4f}' for value in values)})" if len(values) > 1 else ""
    return f"{fmean(values):.4f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "") + each


def _difference(effect: Sequence[float] | None) -> str:
    return NONE if effect is None else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*effect).replace("-", "−")


def _by_seed(of: dict[str, list[Any]], one: str, other: str, seeds: Sequence[int], score: str) -> str:
    """`one` minus `other` under each seed, where there are several: two seeds that disagree are not hidden in their mean."""
    ours, theirs = ({facts["seed"]: metrics[score] for metrics, facts in of.get(arm, ())} for arm in (one, other))
    each = [f"{ours[seed] - theirs[seed]:+.4f}" for seed in seeds if seed in ours and seed in theirs]
    return f" ({', '.join(each)})".replace("-", "−") if len(each) > 1 else ""


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" + "s" * (n != 1)


if __name__ == "__main__":
    write(PAGE, ROOT / "results")
