"""What the terminal shows: progress and errors on stderr, facts and scores on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import WARNINGS, InputError

if TYPE_CHECKING:
    from .knowledge.bank import Hit
    from .knowledge.build import Built
    from .knowledge.check import Finding
    from .pacs import Failure, Fetched, Stored
    from .predict import PredictReport
    from .schemas.comparison import Comparison
    from .schemas.knowledge import BankFile
    from .schemas.metrics import Metrics, Scores
    from .schemas.prediction import ReportFile
    from .schemas.studies import StudyFile

PHASES = {  # of what `train` reports
    "images": "training",
    "reading": "reading films",
    "placing": "placing sentences",
    "deciding": "fitting the decision",
}
WRITING = ("exists", "resume", "unwritable")  # errors about files of ours, whose names tell nothing
LINE_SECONDS = 30  # between two lines of progress where stderr is no terminal


def print_json(data: Any) -> None:
    """One JSON object on stdout, ASCII, so that any terminal and any pipe takes it."""
    print(json.dumps(data, indent=1, default=str))


def explain(error: Exception) -> tuple[int, dict[str, str]]:
    """Exit code, and {code, what, where, fix} for people and programs."""
    if isinstance(error, InputError):
        return 2, {
            "code": error.code,
            "what": error.what,
            "where": error.where if error.code in WRITING else _told(error.where),
            "fix": error.fix,
        }
    if hasattr(error, "format_message"):  # the command line itself cannot be read
        path = getattr(getattr(error, "ctx", None), "command_path", "reportseg")
        return 2, {"code": "usage", "what": error.format_message(), "where": "", "fix": f"See `{path} --help`."}
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        return 2, {
            "code": "os",
            "what": f"the system refused ({reason})",
            "where": _told(str(error.filename or "")),
            "fix": "Check the path, its permissions and the disk.",
        }
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" in {Path(frame.tb_frame.f_code.co_filename).name}, line {frame.tb_lineno}" if frame else ""
    # Not the message: it may quote a report, and people paste what they see into bug trackers.
    fix = "Set REPORTSEG_DEBUG=1 for all of it, and please report it."
    return 1, {"code": "internal", "what": f"a fault of the program: {type(error).__name__}{place}", "where": "", "fix": fix}


def _told(where: str) -> str:
    """A path as the user wrote it; of a DICOM file the case id, since hospitals name files after people."""
    if not Path(where).suffix and not Path(where).is_file():
        return where
    from .io import dicom_name

    return dicom_name(Path(where)) or where


def print_error(error: Exception, as_json: bool) -> int:
    """One line on stderr, or a JSON object on stdout; returns the exit code."""
    exit_code, facts = explain(error)
    if as_json:
        print_json({"error": facts})
        return exit_code
    where = f"{facts['where']}: " if facts["where"] else ""
    print_line(f"error: {where}{facts['what'].rstrip('.')}. {facts['fix']}")
    return exit_code


def print_line(text: str) -> None:
    """One line on stderr. What does not print becomes "?": the name of a file may hold what moves a terminal's cursor."""
    print(_printable(" ".join(text.split())), file=sys.stderr)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def show(facts: Mapping[str, Any], as_json: bool) -> None:
    """Facts as JSON, or one a line."""
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


def print_facts(facts: Mapping[str, Any], indent: str = "") -> None:
    """Nested facts, one a line."""
    width = max((len(str(key)) for key, value in facts.items() if not isinstance(value, Mapping)), default=0)
    for key, value in facts.items():
        if isinstance(value, Mapping):
            print(f"{indent}{key}")
            print_facts(value, indent + "  ")
        else:
            print(f"{indent}{key:<{width}}  {_plain(value)}")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{k} {v}" for item in value for k, v in item.items()) if _rows(value) else ", ".join(map(str, value)) or "none"
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000 else str(value)


def _rows(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(item, Mapping) for item in value)


def print_scores(metrics: Metrics) -> None:
    """The four overlap scores with their intervals, and each control beside them."""
    names = ("dice_pooled", "iou_pooled", "dice_mean", "iou_mean")

    def row(label: str, n: int | None, scores: Scores, intervals: Mapping[str, tuple[float, float]]) -> str:
        cells = []
        for name in names:
            value = getattr(scores, name)
            between = f" [{intervals[name][0]:.3f}, {intervals[name][1]:.3f}]" if name in intervals else ""
            cells.append(f"{'-' if value is None else f'{value:.4f}'}{between}".ljust(23))
        return f"{label:<14}{'' if n is None else n:>6}  {''.join(cells)}".rstrip()

    print(f"{'':<14}{'cases':>6}  {''.join(name.ljust(23) for name in names)}".rstrip())
    print(row(metrics.split, metrics.n_cases, metrics, metrics.ci95))
    for name, subset in metrics.subsets.items():
        print(row(name, subset.n_cases, subset, subset.ci95))
    for name, control in metrics.controls.items():
        print(row(name, control.n_cases, control, {}))
    for name, group in metrics.volumes.items():
        told = [f"{label} {value:.4g}" for label, value in (("dice", group.dice_mean), ("hd95", group.hd95)) if value is not None]
        error = "" if group.volume_error_ml is None else f", volume off by {group.volume_error_ml:.3g} ml"
        print(f"volumes, {name}: {group.n_volumes}, {', '.join(told)} {metrics.volume_hd95_unit}{error}")


def print_comparison(comparison: Comparison) -> None:
    """Both Dice scores of each method, and what lies between it and the reference."""
    from .compare_tables import p_value, text_free

    names = [_printable(arm.name) + " *" * (arm.name == comparison.reference) + " †" * text_free(arm) for arm in comparison.arms]
    width = max(map(len, names)) + 2
    print(f"{'':<{width}}{'dice_pooled':<23}{'dice_mean':<23}{'minus reference, pooled':<27}{'p, Holm':<9}win/tie/loss")
    for name, arm in zip(names, comparison.arms, strict=True):
        cells = []
        for score in ("dice_pooled", "dice_mean"):
            between = " [{:.3f}, {:.3f}]".format(*arm.ci95[score]) if score in arm.ci95 else ""
            cells.append(f"{arm.scores[score]:.4f}{between}".ljust(23))
        if arm.win is not None:  # not the reference
            difference = "{:+.4f} [{:+.3f}, {:+.3f}]".format(*arm.difference["dice_pooled"]) if arm.difference else "-"
            p = "-" if arm.p_holm is None else p_value(arm.p_holm)
            cells += [difference.ljust(27), p.ljust(9), f"{arm.win}/{arm.tie}/{arm.loss}"]
        print("".join([name.ljust(width), *cells]).rstrip())
    print(f"* the reference, † reads no text; {comparison.n_cases} cases of the split {_printable(comparison.split)}")


def print_study(study: StudyFile, lines: Sequence[str], page: Path, as_json: bool, quiet: bool) -> None:
    """A study as JSON, or one line for each thing that it sets side by side, and where its page lies; warnings on stderr."""
    if as_json:
        from .schemas.base import to_json

        print(to_json(study), end="")
        return
    for warning in () if quiet else study.warnings:
        print_line(f"warning: {warning}")
    for line in lines:
        print(_printable(line))
    print(f"report: {page}")


def print_predictions(report: PredictReport, out: Path, as_json: bool, quiet: bool) -> None:
    """How a prediction ended; the cases that failed with the paths as the user wrote them, and what its answers warn of."""
    failures = [{"id": id, "code": e.code, "what": e.what, "where": e.where, "fix": e.fix} for id, e in report.failures]
    if as_json:
        counts = {"done": report.done, "failed": report.failed, "skipped": report.skipped}
        print_json({"out": out, **counts, "failures": failures, "warnings": report.warnings})
        return
    for code, n in () if quiet else sorted(report.warnings.items()):
        print_line(f"warning: {code} ({n} of {report.done}): {WARNINGS[code]}")
    for error in dict.fromkeys(str(error) for _, error in report.failures):  # a full disk fails many cases at once
        print_line(f"error: {error}")
    skipped = f", {report.skipped} were there already" if report.skipped else ""
    failed = f", {report.failed} failed (see failures.csv)" if report.failed else ""
    print(f"{out}: {report.done} done{skipped}{failed}")


def print_hits(hits: Sequence[Hit]) -> None:
    """The statements that a sentence called for, two lines each."""
    for hit in hits:
        print(f"{hit.score:5.2f}  {hit.statement.concept}, {hit.statement.kind}  ({', '.join(hit.why)})")
        print(f"       {hit.statement.statement}")
    if not hits:
        print("no statement fits")


def print_findings(file: BankFile, found: Sequence[Finding], as_json: bool) -> None:
    """What `knowledge check` found, and a line that sums it up."""
    errors = sum(finding.severity == "error" for finding in found)
    if as_json:
        print_json({"bank": file.name, "errors": errors, "warnings": len(found) - errors, "findings": [vars(f) for f in found]})
        return
    for finding in found:
        print(f"{finding.severity}: {finding}")
    fitting = [s for s in file.statements if s.kind != "neutral"]
    neutral = f" and {len(file.statements) - len(fitting)} neutral ones" if len(fitting) < len(file.statements) else ""
    print(f"{file.name}: {len(fitting)} statements of {len({s.concept for s in fitting})} concepts{neutral}")
    print(f"{errors} errors, {len(found) - errors} warnings")


def print_built(built: Built, as_json: bool, quiet: bool) -> None:
    """How a build ended: what was dropped and what failed on stderr, the rest on stdout."""
    if as_json:
        print_json(vars(built))
        return
    for concept, what in () if quiet else built.dropped:
        print_line(f"dropped: {concept}: {what}")
    for concept, _, what in built.failed:
        print_line(f"failed: {concept}: {what}")
    tokens = f"{'about ' if built.estimated else ''}{built.prompt_tokens} + {built.answer_tokens} tokens"
    print(f"{built.bank}: {built.statements} statements of {built.concepts - len(built.failed)} concepts")
    print(f"{built.fresh} asked ({tokens}), {built.cached} from the cache, {len(built.dropped)} dropped, {len(built.failed)} failed")


def print_rows(name: str, rows: Sequence[Mapping[str, str]], more: bool, as_json: bool) -> None:
    """A table with a head, columns aligned; what does not print, in a stranger's values, becomes "?"."""
    if as_json:
        print_json({name: rows, "more": more})
        return
    table = [list(rows[0]), *([_printable(value) or "-" for value in row.values()] for row in rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip())
    print(f"{len(rows)} {name}{', and more: raise --limit' if more else ''}")


def print_fetched(done: Fetched, as_json: bool) -> None:
    """What a fetch brought, the failures on stderr."""
    failures = _print_failures(done.failed, as_json)
    if as_json:
        print_json(vars(done) | {"failed": failures})
        return
    kept = f", {done.kept} were there already" if done.kept else ""
    print(f"{done.folder}: {done.fetched} objects of {len(done.series)} series, {done.bytes / 2**20:.1f} MiB{kept}, {len(failures)} failed")


def print_stored(stored: Sequence[Stored], failed: Sequence[Failure], as_json: bool) -> None:
    """What was stored and how it came back, the failures on stderr."""
    failures = _print_failures(failed, as_json)
    if as_json:
        print_json({"stored": [vars(one) for one in stored], "failed": failures})
        return
    for one in stored:
        print(f"{_printable(one.file)}: stored, read back, equal by {one.confirmed}")
    print(f"{len(stored)} stored, {len(failures)} failed")


def _print_failures(failed: Sequence[Failure], as_json: bool) -> list[dict[str, str]]:
    for one in () if as_json else failed:
        print_line(f"error: {one.name}: {one.what.rstrip('.')}. {one.fix}")
    return [vars(one) for one in failed]


def print_reading(report: ReportFile) -> None:
    """How a report was understood, in numbers: its text stays in its file."""
    counts = Counter(finding.polarity for finding in report.findings)
    parts = [f"{counts[polarity]} {polarity}" for polarity in ("present", "uncertain", "absent")]
    warned = f"; {', '.join(report.warnings)}" if report.warnings else ""
    print(f"report: {', '.join(parts)}, {len(report.skipped)} passages without a finding{warned}")


@contextmanager
def progress(quiet: bool, label: str) -> Iterator[Callable[..., None] | None]:
    """A callable that draws a bar with rate and time left on stderr; None when quiet. Where stderr is no terminal it writes lines.

    It takes (done, total) or one mapping {phase: done, "of": total}, whose first key names what is counted; where that has
    "images_per_s", "left_s" and "loss" they are shown, else the mean rate of the phase so far. A mapping {"remark": text} is printed.
    """
    if quiet:
        yield None
        return
    from rich.console import Console

    console = Console(stderr=True)
    show = _Lines() if not console.is_terminal else _Bar(console)
    phase, start, first = "", time.monotonic(), 0

    def report(step: int | Mapping[str, Any], total: int = 0) -> None:
        nonlocal phase, start, first
        facts = step if isinstance(step, Mapping) else {label: step, "of": total}
        if "remark" in facts:
            console.print(f"remark: {facts['remark']}", markup=False, highlight=False, soft_wrap=True)
            return
        key, done = next(iter(facts.items()))
        now, total = time.monotonic(), facts["of"]
        if key != phase or done < first:
            phase, start, first = key, now, done  # a resumed run begins above 0
        rate = facts.get("images_per_s") or (done - first) / max(now - start, 1e-6)
        left = facts.get("left_s", (total - done) / rate if rate > 0 else None)
        show(PHASES.get(key, key), done, total, rate, left, f"loss {facts['loss']:.3f}" if "loss" in facts else "")

    try:
        yield report
    finally:
        show.close()


class _Lines:
    """For logs: the first step of each phase, one line every half minute, and the last step."""

    def __init__(self) -> None:
        self.said, self.name = 0.0, ""

    def __call__(self, name: str, done: int, total: int, rate: float, left_s: float | None, note: str) -> None:
        now = time.monotonic()
        if name == self.name and done < total and now - self.said < LINE_SECONDS:
            return
        left = f", {left_s:.0f} s left" if left_s is not None and done < total else ""
        print(f"{name}: {done}/{total}, {rate:.1f}/s{left} {note}".rstrip(), file=sys.stderr, flush=True)
        self.said, self.name = now, name

    def close(self) -> None:
        pass


class _Bar:
    """For people: one live line."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        fields = (TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[left]}"), TextColumn("{task.fields[note]}"))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), *fields)
        self.bar = Progress(*columns, console=console, transient=True)
        self.bar.start()
        self.task, self.name = self.bar.add_task("", total=None, rate="", left="", note=""), ""

    def __call__(self, name: str, done: int, total: int, rate: float, left_s: float | None, note: str) -> None:
        if name != self.name:
            self.bar.reset(self.task, description=name)
            self.name = name
        left = "" if left_s is None else f"{left_s:.0f} s left"
        self.bar.update(self.task, completed=done, total=total or None, rate=f"{rate:.1f}/s", left=left, note=note)

    def close(self) -> None:
        self.bar.stop()
