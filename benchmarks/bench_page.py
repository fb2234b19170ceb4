"""docs/bench.md from what lies in results/bench-cpu and results/bench-gpu: every score on it is read there.

python benchmarks/bench_page.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import bench_cost
from bench_prose import CPU, FALLS, GPU, HEAD, MODULE_TEXT, RULES
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
CONTROLS = {"shuffled": "shuffled", "swapped-side": "sides swapped"}  # of metrics.json, and their columns
NONE = "–"


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
        scored = [one for cell, one in cells.items() if _arm(cell) == arm]
        if scored and arm not in map(_arm, failed):
            interval = _intervals(told, arm, scored).get(score, (None, None))
            found[arm] = bench_cost.Reached(name, fmean(metrics[score] for metrics, _ in scored), *interval)
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


def _seeds(cells: Sequence[Any]) -> list[int]:
    return [facts["seed"] for _, facts in cells]


def _intervals(told: dict[str, Any], arm: str, cells: Sequence[Any]) -> dict[str, Any]:
    """By score, where they were computed from these cells and no others: a cell may be deleted before table.json is made anew."""
    known = told.get(arm, {})
    return known["ci95"] if known.get("seeds") == _seeds(cells) else {}


def _paired(told: dict[str, Any], of: dict[str, list[Any]]) -> dict[str, Any]:
    """The differences of table.json, but for those of cells that no longer lie there."""
    here = {arm: _seeds(cells) for arm, cells in of.items()}
    return {
        one: {other: effect for other, effect in minus.items() if effect["seeds"] == [seed for seed in here[one] if seed in here[other]]}
        for one, minus in told.items()
    }


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
    paired = _paired(told["differences"], of)
    differences = _differences(paired, of, [arm for arm in NAMES if lost[arm]])
    parts = [on, _methods(of, lost, told, search, folder.name), differences, bench_cost.section(folder, reached(folder))]
    if modules:
        parts += [MODULE_TEXT, _modules(of, paired, protocol["seeds"])]
    return "".join([*parts, rules, _rates(search, len(protocol["rates"]), _methods_of(cells)), _cells(cells, failed)])


def _methods(of: dict[str, list[Any]], lost: dict[str, list[Any]], told: dict[str, Any], search: dict[str, Any], bench: str) -> str:
    """`of` and `lost` by arm: the cells that have scores, and those that diverged. `bench` names the figure."""
    heads = ["method", "M parameters", "seeds", *SCORES, *CONTROLS.values(), "marks"]
    ranked, unranked = list[list[str]](), list[list[str]]()
    for arm, name in NAMES.items():
        facts = [cell for _, cell in of[arm]] + lost[arm]
        if not facts:
            continue
        seeds, ci95 = _seeds(of[arm]), _intervals(told["arms"], arm, of[arm])
        scores = [_score([metrics[score] for metrics, _ in of[arm]], ci95.get(score)) if of[arm] else NONE for score in SCORES]
        falls = [_fall([metrics for metrics, _ in of[arm]], control) for control in CONTROLS]
        marks = _marks([cell for _, cell in of[arm]])
        marks += ["end of the grid"] * _at_the_end(search.get(facts[0]["method"], {}))
        marks += [f"seed {cell['seed']} diverged" for cell in lost[arm]]
        row = [name, f"{facts[0]['params'] / 1e6:.2f}", ", ".join(map(str, seeds)) or NONE, *scores, *falls, ", ".join(marks)]
        (unranked if lost[arm] else ranked).append(row)
    order = [*sorted(ranked, key=lambda row: row[3], reverse=True), *unranked]
    says = "\n### Methods\n\nBy dice_pooled: the mean over the seeds, its interval, and each seed's." + FALLS + "\n\n"
    shown = f"![Both Dice scores of every method, with intervals](images/{bench}.svg)\n\n" if len(ranked) > 1 else ""
    return says + shown + table(heads, order)


def _fall(runs: Sequence[Any], control: str) -> str:
    """By how many points of dice_pooled the mean of the runs falls under a control."""
    falls = [metrics["controls"][control]["difference"]["dice_pooled"] for metrics in runs if control in metrics["controls"]]
    return f"{100 * fmean(fall[0] for fall in falls):.1f}" if falls else NONE


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
    """Whether a method is above every peer on both scores, by intervals; which it is not above, and by how much."""
    found = [(arm, score, minus[arm][score]) for arm in PEERS if arm in minus for score in SCORES if score in minus[arm]]
    behind = [(arm, score, effect) for arm, score, effect in found if effect[1] <= 0]
    missing = [NAMES[arm] for arm in PEERS if arm not in minus and arm not in diverged]
    fell = [NAMES[arm] for arm in PEERS if arm in diverged]
    whom = "every peer that has been scored" if fell else "every peer"
    if missing:
        whom = f"every peer that has been {'scored' if fell else 'run'} ({', '.join(NAMES[arm] for arm in PEERS if arm in minus)})"
    but = ", ".join(dict.fromkeys(NAMES[arm] for arm, *_ in behind))
    parts = [f"**{NAMES[one]} is above {whom}{f' but {but}' if but else ''} on both scores**"]
    once = [NAMES[arm] for arm in PEERS if arm in minus and len(minus[arm]["seeds"]) == 1]
    several = [arm for arm in PEERS if arm in minus and len(minus[arm]["seeds"]) > 1]
    parts[0] += ", by one seed alone" if not several else ""
    for arm, score, effect in behind:
        parts.append(f"{'below' if effect[2] < 0 else 'not told apart from'} {NAMES[arm]} on {score} ({_difference(effect)})")
    parts += [f"by one seed alone: {', '.join(once)}"] * bool(once and several)
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
        minus = told.get(full, {}).get(arm)
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
