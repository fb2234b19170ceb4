"""The whole path in one call: phantom films, training, evaluation, report."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config import load_config
from .data.manifest import read_manifest
from .data.synthetic import synthesise
from .errors import InputError
from .evaluate import evaluate
from .limits import atomic_write
from .schemas.base import write_json
from .train import train

FILMS = 600
MARK, OURS = "README.txt", "Made by `reportseg demo`. Another demo in this folder replaces data, run and eval.\n"
PARTS = ("data", "run", "eval")


def run_demo(out: str | Path = "runs/demo", progress: Callable[..., None] | None = None) -> dict[str, Any]:
    """Writes out/data, out/run and out/eval and gives {report, next, demo_s, scores}; a former demo there is replaced.

    InputError exists where the folder holds anything else. `demo_s` in eval/metrics.json is the time of all of it, in seconds.
    """
    folder, start = Path(out), time.monotonic()
    mark = folder / MARK
    ours = mark.is_file() and mark.read_text(encoding="utf-8") == OURS
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("the folder holds something else than a demo", folder, "Choose another one with -o.", "exists")
    atomic_write(mark, OURS)
    data, run, scores = (folder / part for part in PARTS)
    for part in (data, run, scores):
        shutil.rmtree(part, ignore_errors=True)

    def tell(phase: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, of: progress({phase: done, "of": of})

    manifest = synthesise(data, FILMS, progress=tell("drawing"))
    train(load_config("demo"), manifest=manifest, out=run, progress=progress)
    command = shlex.join(["reportseg", "demo", "-o", str(out)])
    metrics = evaluate(run / "bundle", manifest, split="test", out=scores, command=command, progress=tell("scoring"))
    metrics = metrics.model_copy(update={"demo_s": round(time.monotonic() - start, 1)})
    write_json(scores / "metrics.json", metrics)
    film = read_manifest(manifest).split("test")[0]
    ask = ["reportseg", "predict", str(run / "bundle"), str(film.image), "--text", film.text, "-o", str(folder / "out")]
    return {
        "report": str(scores / "report.html"),
        "next": shlex.join(ask),
        "demo_s": metrics.demo_s,
        "dice_pooled": metrics.dice_pooled,
        "dice_pooled_shuffled": metrics.controls["shuffled"].dice_pooled,
    }
