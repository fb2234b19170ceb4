"""The bench: every method trained and tested in the same way on one data set, by one command that goes on where it stopped.

    python benchmarks/bench.py cpu qata [--cells tgcnet-0,unet-0] [--minutes 60] [--list]
    python benchmarks/bench.py gpu qata [...]

A cell is a method, or one with a change, under one seed. RESULTS/<cell>/ has its metrics.json, as `evaluate` writes it, cell.json: what it
was trained with, by which code (`probe`), and counts.json: the pixels of each film, by its place in the split and without its name, so that
cells which were run months or machines apart are still paired film by film; of a training that diverged it has failed.json alone. Beside
them protocol.json, search.json (the learning rates tried) and table.json (what was computed from the counts). Runs, evaluations and the
manifest of the films stay in WORK. docs/bench.md is written anew after each cell.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

import bench_page
import bench_probe
import bench_table
from bench_page import FAILED, SCORES
from bench_protocol import ARMS, PROTOCOLS, Arm, Protocol, cells, configure, keys
from bench_table import COUNTS
from reportseg import Segmenter
from reportseg.cases import METRICS
from reportseg.config import RunConfig, parse_config
from reportseg.console import print_error, print_line, progress
from reportseg.data.manifest import MANIFEST, read_manifest, read_table, write_manifest
from reportseg.data.splits import draw_dev, nested_shares, split_sha256
from reportseg.engines import pick_device
from reportseg.errors import InputError
from reportseg.evaluate import evaluate
from reportseg.info import bundle_facts
from reportseg.limits import atomic_write
from reportseg.models import count_parameters, resolve
from reportseg.optim import bf16_gains
from reportseg.run_config import ENV
from reportseg.runs import alone, without_paths
from reportseg.schemas.base import load_json, read_json
from reportseg.schemas.metrics import Metrics
from reportseg.schemas.training import EnvFile, TrainingFile
from reportseg.scoring import hash_cases
from reportseg.studies.films import sentences_sha256
from reportseg.train import BUNDLE, CHECKPOINTS, train
from reportseg.types import Sample

ROOT = Path(__file__).parents[1]
CELL = "cell.json"
BEGUN = ".begun.json"  # beside a run's folder: the recipe, the code and the films that it was begun with
PROTOCOL, SEARCH, TABLE = "protocol.json", "search.json", "table.json"
LAST = 0.2  # a curve is watched over this last share of its images
EVALUATE_S, IMAGES_PER_S = 90.0, 45.0  # guesses until a search or a cell tells: 112 px, stride 2, two cores with AVX512-BF16


def climb(curve: Sequence[Sequence[float]], images: int) -> float | None:
    """By how much (images, value) rose over the last fifth; the start of it lies between two readings. None without two readings."""
    start = (1 - LAST) * images
    before = [point for point in curve if point[0] <= start]
    after = [point for point in curve if point[0] > start]
    if not before or not after:
        return None
    (x0, y0), (x1, y1) = before[-1], after[0]
    return curve[-1][1] - (y0 + (y1 - y0) * (start - x0) / (x1 - x0))


def made_by(config: RunConfig, films: Mapping[str, str]) -> dict[str, Any]:
    """What tells the recipe, the code and the films of a run, for `changed`."""
    return {"config": without_paths(config), "probe": bench_probe.probe(config.model), "films": films}


def changed(before: Mapping[str, Any], config: RunConfig, films: Mapping[str, str]) -> tuple[str, str] | None:
    """recipe, code or data, and what differs in it from what `made_by` told before. None where nothing does; what was not told agrees."""
    if "config" in before:
        one = keys(resolve(parse_config(before["config"], config.name)))  # keys that came later have their defaults
        two = keys(config)
        if differs := sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key)):
            return "recipe", ", ".join(differs)
    if told := bench_probe.difference(before.get("probe"), bench_probe.probe(config.model)):
        return "code", told
    other = [name for name, told in before.get("films", {}).items() if told != films[name]]
    return ("data", ", ".join(other)) if other else None


def speed(training: TrainingFile) -> float:
    """Images a second, dev readings included."""
    return round(training.images / max(training.seconds, 1e-3), 2)


class Bench:
    """One protocol on one data set."""

    def __init__(self, protocol: Protocol, manifest: str | Path, work: Path, results: Path, page: Path) -> None:
        self.protocol, self.work, self.results, self.page = protocol, work, results, page
        self.dataset = read_manifest(manifest)
        self.train_films = self.dataset.split("train")
        self.part = set(nested_shares(self.train_films, self.dataset.name, [protocol.share])[0])
        self.dataset.split(protocol.split)  # refused here, not after the first training
        self.search: dict[str, dict[str, dict[str, Any]]] = self._stored(SEARCH)

    def _stored(self, name: str) -> dict[str, Any]:
        path = self.results / name
        return load_json(path) if path.exists() else {}

    def _store(self, name: str, values: dict[str, Any]) -> None:
        (self.results / name).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.results / name, json.dumps(values, indent=1) + "\n")

    # ---------------------------------------------------------------- what is asked

    def command(self, cell: str) -> str:
        """As it stands in what is published: no path of this machine."""
        return f"python benchmarks/bench.py {self.protocol.name.removeprefix('bench-')} {self.dataset.name} --cells {cell}"

    def chosen(self, named: Sequence[str]) -> list[str]:
        """The cells of these names, or of these methods, in the order of the bench; all without names. InputError unknown."""
        every = cells(self.protocol)
        for name in named:
            if name not in every and name not in {arm.name for arm, _ in every.values()}:
                raise InputError("there is no such cell", name, f"There are {', '.join(every)}.", "unknown")
        return [cell for cell, (arm, _) in every.items() if not named or cell in named or arm.name in named]

    def images_of(self, arm: Arm) -> int:
        return self.protocol.images // (1 if arm.full is None else 2)

    def done(self, cell: str) -> bool:
        return bench_table.done(self.results, cell)

    def listing(self, named: Sequence[str]) -> str:
        """A line for each cell: images, learning rate, state and the minutes it should take, the search of its rate included."""
        told = [load_json(path) for path in sorted(self.results.glob(f"*/{CELL}"))]
        evaluating = median([one["evaluate_s"] for one in told] or [EVALUATE_S])
        counted, total, guessed = set[str](), 0.0, False
        lines = [f"{'cell':<30} {'images':>8} {'rate':>8} {'state':>7} {'minutes':>8}"]
        for cell in self.chosen(named):
            arm, _ = cells(self.protocol)[cell]
            tried, rate, minutes = self.search.get(arm.method, {}), self.best(arm.method), 0.0
            if not self.done(cell) or rate is None:
                speeds = [one["images_per_s"] for one in (*told, *tried.values()) if one.get("method", arm.method) == arm.method]
                speeds = [speed for speed in speeds if speed is not None]
                guessed |= not speeds
                left = 0 if arm.method in counted else len(self.protocol.rates) - len(tried)
                cell_images, cell_s = (0, 0.0) if self.done(cell) else (self.images_of(arm), evaluating)
                images = cell_images + left * self.protocol.search * self.protocol.images
                minutes = (images / median(speeds or [IMAGES_PER_S]) + cell_s) / 60
                counted.add(arm.method)
            total += minutes
            state = "done" if self.done(cell) else "to do"
            lines.append(f"{cell:<30} {self.images_of(arm):>8,} {f'{rate:g}' if rate else '?':>8} {state:>7} {minutes:>8.1f}")
        dev = len(draw_dev([s for s in self.train_films if s.id in self.part], self.dataset.name))
        films = f"{len(self.part):,} of {len(self.train_films):,} training films, {dev:,} of them dev"
        scored = f"{len(self.dataset.split(self.protocol.split)):,} of {self.protocol.split} scored"
        guess = ", in part guessed: not all methods have been timed here" if guessed else ""
        return "\n".join([*lines, f"{films}; {scored}. In all {total / 60:.1f} h{guess}."])

    # ---------------------------------------------------------------- running

    def run(self, named: Sequence[str] = (), minutes: float | None = None) -> int:
        """Runs what is missing; begins nothing after `minutes`. 3 where a cell failed, which the others do not wait for."""
        end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
        failed, chosen = 0, self.chosen(named)
        with alone(self.work):
            self.films, self.contents = self._manifest(), self._contents()
            self.precision = self._settle()
            for cell in chosen:
                try:
                    rate = self._search(method := cells(self.protocol)[cell][0].method, end)
                    if rate is None or (not self.done(cell) and time.monotonic() > end):
                        print_line("the time is up: the same command goes on")
                        break
                    self._check_rate(method, rate)
                    if not self.done(cell):
                        self._cell(cell, rate)
                except InputError as error:
                    failed += 1
                    print_error(error, as_json=False)
                self._publish()
            self._publish()
        return 3 if failed else 0

    def _manifest(self) -> Path:
        """The training films of the protocol. What is scored is read from the data set itself."""
        if len(self.part) == len(self.train_films):
            return self.dataset.path
        rows = read_table(self.dataset.path, ("image", "mask"))
        kept = [{**row, "id": s.id} for row, s in zip(rows, self.dataset.samples, strict=True) if s.id in self.part]
        write_manifest(self.work / "data", kept, self.dataset.info.model_copy(update={"root": str(self.dataset.root.resolve())}))
        return self.work / "data" / MANIFEST

    def _contents(self) -> dict[str, str]:
        """What the films say and show: it may change while their ids stay. Of the true masks that are scored `metrics.json` tells."""
        trained = [film for film in self.train_films if film.id in self.part]
        return {"sentences": sentences_sha256([*trained, *self._films()]), "masks of train": hash_cases(trained)}

    def _settle(self) -> str:
        """The precision of all runs: probed once. InputError protocol where the results that lie there were made in another way."""
        films = {"data": self.dataset.name, "train_films": len(self.part), "train_sha256": split_sha256(self.part)}
        asked = {**asdict(self.protocol), "recipe": Path(self.protocol.recipe).name, **films}
        asked = json.loads(json.dumps(asked))  # tuples become lists
        stored = self._stored(PROTOCOL)
        differs = [key for key in asked if stored and stored.get(key) != asked[key]]
        if differs:
            what = f"the bench was begun with another {', '.join(differs)}"
            raise InputError(what, self.results / PROTOCOL, "Give the same data, or other folders for --work and --results.", "protocol")
        device = pick_device(self.protocol.device)
        if self.protocol.device == "auto" and device.type == "cpu":
            what = f"{self.protocol.name} is for an accelerator, and there is none"
            raise InputError(what, self.protocol.name, "Run the protocol cpu, or this one where there is one.", "device")
        if not stored:
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
            stored = {**asked, "precision": "bf16" if bf16_gains(device) else "fp32", "on": name, "threads": torch.get_num_threads()}
            self._store(PROTOCOL, stored)
        self._check_cells(str(stored["precision"]))
        return str(stored["precision"])

    def _check_cells(self, precision: str) -> None:
        """InputError protocol where a finished cell was trained by a recipe or a code of its model or on films that have changed since, or
        scored on other true masks or patients than those at hand: rows of two makings are no comparison.
        """
        finished = [cell for cell in cells(self.protocol) if self.done(cell)]
        films = self._films() if finished else []
        truth, patients = hash_cases(films), len({film.patient for film in films} - {""})
        for cell in finished:
            arm, seed = cells(self.protocol)[cell]
            facts, metrics = load_json(self.results / cell / CELL), read_json(self.results / cell / METRICS, Metrics)
            if differs := changed(facts, configure(self.protocol, arm, seed, facts["lr"], facts["images"], precision), self.contents):
                what, told = differs
                whose = "all" if what == "data" else "this method's"
                fix = f"Restore the {what}, or delete the folders of {whose} cells in {self.results.name} to train them anew."
                raise InputError(f"the {what} of {cell} has changed since it was trained: {told}", self.results / cell, fix, "protocol")
            if (metrics.cases_sha256, metrics.n_patients) != (truth, patients):
                fix = "Give the data set as it was imported for that cell, or other folders for --work and --results."
                raise InputError(
                    f"the true masks or the patients are not those that {cell} was scored on", self.dataset.path, fix, "protocol"
                )

    def _check_rate(self, method: str, rate: float) -> None:
        """InputError protocol where a finished cell of the method has another learning rate than the one just found: it may have been run
        before a search that was made again, and rows of two rates are no comparison.
        """
        for cell, (arm, _) in cells(self.protocol).items():
            if arm.method == method and self.done(cell) and (had := load_json(self.results / cell / CELL)["lr"]) != rate:
                what = f"{cell} was trained with a learning rate of {had:g}, and that of its method is {rate:g}"
                raise InputError(what, self.results / cell, "Delete this folder to train the cell anew.", "protocol")

    def _train(self, config: RunConfig, folder: Path, label: str) -> TrainingFile:
        """A run that is done or goes on; what another recipe or code, or other films, began is begun anew. Its checkpoints, 100 MB and
        more, are of no use afterwards.
        """
        begun = folder.with_name(folder.name + BEGUN)
        if begun.exists() and changed(load_json(begun), config, self.contents):
            shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(begun, json.dumps(made_by(config, self.contents)) + "\n")
        with progress(False, label) as report:
            train(config, manifest=self.films, out=folder, resume=True, device=self.protocol.device, progress=report)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        return read_json(folder / BUNDLE / "training.json", TrainingFile)

    def best(self, method: str) -> float | None:
        """The learning rate with the highest sum of both Dice scores on dev; None until all have been tried."""
        tried = self.search.get(method, {})
        if len(tried) < len(self.protocol.rates):
            return None
        reached = {rate: sum(scores[name] or 0.0 for name in SCORES) for rate, scores in tried.items()}
        return float(max(reached, key=lambda rate: reached[rate]))

    def _search(self, method: str, end: float) -> float | None:
        """Tries the learning rates that have not been tried with this recipe and code on these films. None where the time is up before all
        are known.
        """
        seed, images = self.protocol.seeds[0], int(self.protocol.search * self.protocol.images)
        for rate in self.protocol.rates:
            config = configure(self.protocol, ARMS[method], seed, rate, images, self.precision)
            tried = self.search.get(method, {}).get(str(rate))
            if tried is not None and not changed(tried, config, self.contents):
                continue
            if time.monotonic() > end:
                return None
            found: dict[str, Any] = dict.fromkeys((*SCORES, "images_per_s"))
            try:
                training = self._train(config, self.work / "search" / f"{method}-{rate:g}", f"{method}, learning rate {rate:g}")
                found = {**{name: training.dev[name] for name in SCORES}, "images_per_s": speed(training)}
            except InputError as error:
                if error.code != "diverged":
                    raise
            self.search.setdefault(method, {})[str(rate)] = found | made_by(config, self.contents)
            self._store(SEARCH, self.search)
        return self.best(method)

    def _cell(self, cell: str, rate: float) -> None:
        arm, seed = cells(self.protocol)[cell]
        run, scored, images = self.work / "runs" / cell, self.work / "eval" / cell, self.images_of(arm)
        config = configure(self.protocol, arm, seed, rate, images, self.precision)
        try:
            training = self._train(config, run, cell)
        except InputError as error:
            if error.code == "diverged":
                self._store(f"{cell}/{FAILED}", self._diverged(cell, config, run, error))
            raise
        began = time.monotonic()
        segmenter = Segmenter.from_pretrained(run / BUNDLE, device=self.protocol.device)
        if not (scored / METRICS).exists() or read_json(scored / METRICS, Metrics).bundle_sha256 != segmenter.sha256:
            with progress(False, f"{cell}, scoring") as report:
                evaluate(
                    segmenter,
                    self.dataset.path,
                    split=self.protocol.split,
                    out=scored,
                    images=False,
                    overwrite=True,  # an evaluation of the weights of an earlier try
                    command=self.command(cell),
                    progress=report,
                )
        env = read_json(run / ENV, EnvFile)
        curves = {name: training.curves.get(f"dev_{name}", []) for name in SCORES}
        facts = {
            "cell": cell,
            "method": arm.method,
            "seed": seed,
            "command": self.command(cell),
            "commit": env.commit,
            "versions": env.versions,
            "threads": env.threads,
            "params": bundle_facts(str(run / BUNDLE))["params"]["total"],  # with the words that it has met
            "images": training.images,
            "half_the_images": arm.full is not None,
            "lr": rate,
            "seconds": training.seconds,
            "images_per_s": speed(training),
            "evaluate_s": round(time.monotonic() - began, 1),
            "dev": training.dev,
            "dev_curves": curves,
            "climb": {name: climb(curve, training.images) for name, curve in curves.items()},
            "figures": {name: curve[-1][1] for name, curve in training.curves.items() if curve},
            **made_by(config, self.contents),
        }
        self._store(f"{cell}/{CELL}", facts)
        self._store(f"{cell}/{COUNTS}", bench_table.counts(scored, self._films()))
        shutil.copyfile(scored / METRICS, self.results / cell / ".metrics")
        (self.results / cell / ".metrics").replace(self.results / cell / METRICS)  # last: where it lies the cell is done
        (self.results / cell / FAILED).unlink(missing_ok=True)  # of an earlier try

    def _diverged(self, cell: str, config: RunConfig, run: Path, error: InputError) -> dict[str, Any]:
        """What the page tells of a cell without scores. The films of the batch, which the error names, are not published."""
        arm, seed = cells(self.protocol)[cell]
        return {
            "cell": cell,
            "method": arm.method,
            "seed": seed,
            "command": self.command(cell),
            "commit": read_json(run / ENV, EnvFile).commit if (run / ENV).exists() else None,
            "params": count_parameters(config.model)["total"],
            "images": config.train.images,
            "lr": config.train.lr,
            "why": error.what.partition(". ")[0],
            "config": without_paths(config),
        }

    # ---------------------------------------------------------------- telling

    def _films(self) -> list[Sample]:
        """What is scored, in the order of counts.json."""
        return sorted(self.dataset.split(self.protocol.split), key=lambda film: film.id)

    def _publish(self) -> None:
        """table.json, then the page."""
        self._store(TABLE, bench_table.update(self._stored(TABLE), self.protocol, self.results, self._films()))
        bench_page.write(self.page, self.results.parent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("protocol", choices=PROTOCOLS)
    parser.add_argument("data", help="manifest.csv or its folder")
    parser.add_argument("--cells", default="", help="names of cells or of methods, with commas; default: all")
    parser.add_argument("--minutes", type=float, help="begin no cell and no search after so many")
    parser.add_argument("--list", action="store_true", help="what there is, what is done and how long the rest takes; run nothing")
    parser.add_argument("--work", type=Path, default=ROOT / "runs", help="folder of runs; default: runs")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of what is published; default: results")
    parser.add_argument("--page", type=Path, default=bench_page.PAGE)
    asked = parser.parse_args()
    protocol = PROTOCOLS[asked.protocol]
    named = [name for name in asked.cells.split(",") if name]
    try:
        bench = Bench(protocol, asked.data, asked.work / protocol.name, asked.results / protocol.name, asked.page)
        if asked.list:
            print(bench.listing(named))
            return 0
        return bench.run(named, asked.minutes)
    except (InputError, OSError) as error:
        return print_error(error, as_json=False)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
