"""The command line: every command reads its options, calls one function and prints what came of it.

Nothing heavy and nothing of ours is imported at the top, so that `--help` answers at once. stdout carries results, progress goes to stderr.
Exit codes: 0 all done, 1 our fault, 2 the user's input and nothing done, 3 some cases failed and the rest is done, 130 interrupted.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")  # before anything that could report home is imported
# Threads that wait by spinning stand in each other's way: beside one other busy program a training step takes twenty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

RESUMES = {"train", "predict", "study", "fetch"}  # commands that have --resume


class Commands(TyperGroup):
    """Turns what a command raises into one line and an exit code, and keeps the arguments as they were typed."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Keeps the arguments as they were typed, for metrics.json. An option before the command that is none ends as in `invoke`."""
        typed = extra.setdefault("obj", tuple(args))
        try:
            return super().make_context(info_name, args, parent, **extra)
        except Exception as error:
            if not typed or not hasattr(error, "format_message"):  # without a word the help is shown
                raise
            from .console import print_error

            raise typer.Exit(print_error(error, as_json="--json" in typed)) from None

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; whatever it raises ends in one line, or one JSON object, and an exit code."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            how = "the same command with --resume goes on" if RESUMES & {*ctx.obj[:2]} else "the same command starts again"
            print(f"interrupted: {how}", file=sys.stderr)
            raise typer.Exit(130) from None
        except Exception as error:
            if os.environ.get("REPORTSEG_DEBUG") == "1":
                import traceback

                traceback.print_exc()
            from .console import print_error

            raise typer.Exit(print_error(error, as_json="--json" in ctx.obj)) from None


def _list(text: str) -> list[str]:
    """A comma-separated option."""
    return [part.strip() for part in text.split(",") if part.strip()]


Laterality = Literal["patient", "image", "none"]
Json = Annotated[bool, typer.Option("--json", help="Print the result, or the error, as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks, only the result.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
WhoseLeft = Annotated[Laterality | None, typer.Option("--laterality", help="Whose left the texts mean; default: what file or bundle says.")]
Column = Annotated[str, typer.Option("--text-column", help="Column of the manifest that holds the texts.")]
With = Annotated[list[str] | None, typer.Option("--with", metavar="BUNDLE", help="Average with this bundle; may be repeated.")]
Flips = Annotated[
    bool | None,
    typer.Option("--flips/--no-flips", help="Average with the answer to the mirrored film, side words swapped; default: the bundle's."),
]
Set = Annotated[list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one key of the config; may be repeated.")]


def _typer(help_text: str | None = None, **options: Any) -> typer.Typer:
    # Plain help: rich's boxes would treble the time of --help, and read brackets as markup.
    return typer.Typer(help=help_text, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, **options)


app = _typer(cls=Commands, no_args_is_help=True, epilog="First steps: reportseg demo")
data_app = _typer("Import, check and make data sets.")
config_app = _typer("Show the configs that ship with the program, and all schemas.")
knowledge_app = _typer("Show, check and build the banks of knowledge that TGC-Net reads beside a sentence.")
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.add_typer(knowledge_app, name="knowledge")


def _version(asked: bool) -> None:
    if asked:
        import reportseg

        print(f"reportseg {reportseg.__version__}")
        raise typer.Exit


@app.callback()
def main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False) -> None:
    """Segment in a medical image what a sentence describes.

    Research use only. Not a medical device: not for diagnosis or treatment.
    """
    if hasattr(sys.stdout, "reconfigure"):  # a file name that is not valid Unicode must not stop an answer
        sys.stdout.reconfigure(errors="backslashreplace")


@app.command(epilog="Example: reportseg demo -o runs/demo")
def demo(out: Out = Path("runs/demo"), as_json: Json = False, quiet: Quiet = False) -> None:
    """Show the whole path on phantom films: minutes on a CPU.

    Draws films and sentences, trains TGC-Net on them, evaluates it and writes a report.
    """
    from .console import print_json, progress
    from .demo import run_demo

    with progress(quiet, "demo") as report:
        result = run_demo(out, report)
    if as_json:
        print_json(result)
        return
    print(f"dice_pooled {result['dice_pooled']:.3f}, with shuffled sentences {result['dice_pooled_shuffled']:.3f}")
    print(f"report: {result['report']}")
    print(f"next: {result['next']}")


# ---------------------------------------------------------------- train, evaluate, predict


@app.command(epilog="Example: reportseg train tgcnet_qata_small --data qata -o runs/first -s train.images=20000")
def train(
    config: Annotated[str | None, typer.Argument(metavar="CONFIG|NAME", help="A YAML file, or a name of `reportseg config list`.")] = None,
    manifest: Annotated[
        list[Path] | None, typer.Option("--data", help="manifest.csv or its folder; default: the config's; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder, with --seeds their parent; default: runs/NAME-SEED.")] = None,
    overrides: Set = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="LIST", help="One run for each seed, as in 0,1,2.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint; -o alone is enough.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check config and data, print the plan, train nothing.")] = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model.

    Writes a run folder; the folder `bundle` in it is what evaluate and predict take.
    """
    from .config import load_config
    from .console import print_json, progress, show
    from .errors import InputError

    if config is None and not (resume and out):
        raise InputError("no config was named", "", "Give a name of `reportseg config list`, a YAML file, or --resume -o RUN.", "usage")
    source, changes = config or Path(str(out)) / "config.yaml", overrides or []
    run_config = load_config(source, changes)
    numbers = None if seeds is None else [load_config(source, [*changes, f"seed={seed}"]).seed for seed in _list(seeds)]
    from .train import dry_run as plan
    from .train import train as fit
    from .train import train_seeds

    if dry_run:
        show(plan(run_config, manifest=manifest), as_json)
        return
    with progress(quiet, "train") as report:
        if numbers is None:
            runs = [fit(run_config, manifest=manifest, out=out, resume=resume, device=device, progress=report)]
        else:
            runs = train_seeds(run_config, numbers, out=out, manifest=manifest, resume=resume, device=device, progress=report)
    if as_json:
        print_json({"runs": [{"run": run, "bundle": run / "bundle"} for run in runs]})
    else:
        for run in runs:
            print(run / "bundle")


@app.command(epilog="Example: reportseg evaluate runs/first/bundle qata --split val -o runs/first/val")
def evaluate(
    ctx: typer.Context,
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle; leave it out with --masks.")],
    out: Out,
    manifest: Annotated[str | None, typer.Argument(metavar="MANIFEST", help="manifest.csv or its folder.")] = None,
    split: Annotated[str, typer.Option("--split", help="Split to score.")] = "test",
    text_column: Column = "text",
    controls: Annotated[
        str | None, typer.Option("--controls", metavar="LIST", help="Of original,empty,shuffled,swapped-side, or none.")
    ] = None,
    twin: Annotated[Path | None, typer.Option("--twin", help="Evaluation folder of the text-free twin, to compare.")] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="Score the files ID.png, ID.mask.png or STUDY_LABEL.nii.gz in this folder.")
    ] = None,
    with_: With = None,
    flips: Flips = None,
    no_images: Annotated[bool, typer.Option("--no-images", help="Leave films out of the report.")] = False,
    save_masks: Annotated[bool, typer.Option("--save-masks", help="Write each mask to masks/ID.png, for compare to show.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first rows of the split.")] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a bundle, or anyone's mask files, on a split.

    Writes metrics.json, cases.csv and report.html. Cases that fail count as empty answers: exit 3.
    """
    from .console import print_scores, progress
    from .errors import InputError
    from .evaluate import evaluate as score
    from .schemas.base import to_json

    if (masks is None) != (manifest is not None):
        raise InputError("what to score is not clear", "", "Name a bundle and a manifest, or --masks and a manifest alone.", "usage")
    with progress(quiet, "scoring") as report:
        metrics = score(
            bundle if manifest else None,
            manifest or bundle,
            split=split,
            text_column=text_column,
            controls=None if controls is None else [] if controls == "none" else _list(controls),
            twin=twin,
            masks=masks,
            with_=tuple(with_ or ()),
            flips=flips,
            device=device,
            out=out,
            images=not no_images,
            save_masks=save_masks,
            limit=limit,
            overwrite=overwrite,
            command=shlex.join(["reportseg", *ctx.obj]),
            progress=report,
        )
    if as_json:
        print(to_json(metrics), end="")
    else:
        print_scores(metrics)
        print(f"report: {out / 'report.html'}")
    if metrics.counts.failed:
        raise typer.Exit(3)


@app.command(epilog="Example: reportseg compare runs/first/val runs/twin/val -o runs/first-and-twin")
def compare(
    ctx: typer.Context,
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that evaluate wrote, two or more.")],
    out: Out,
    reference: Annotated[
        str | None, typer.Option("--reference", metavar="NAME|DIR", help="Compare each method with this one; default: the first.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--data", help="manifest.csv or its folder: show films, where evaluate had --save-masks.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare evaluations on the same cases.

    Seeds of one configuration count as one method. Writes compare.html, compare.json and table.md, .csv, .tex.
    """
    from .compare import PAGE
    from .compare import compare as against
    from .console import print_comparison, print_line
    from .schemas.base import to_json

    command = shlex.join(["reportseg", *ctx.obj])
    done = against(folders, out=out, reference=reference, manifest=manifest, overwrite=overwrite, command=command)
    if as_json:
        print(to_json(done), end="")
        return
    for warning in () if quiet else done.warnings:
        print_line(f"warning: {warning}")
    print_comparison(done)
    print(f"report: {out / PAGE}")


@app.command(epilog='Example: reportseg predict demo film.png --text "opacity in the left lower zone" -o out')
def predict(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle folder, a shipped name such as demo, or hf:owner/name.")],
    out: Out,
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGE", help="Films, or folders and zips of DICOM; asked the same.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="What to look for.")] = None,
    jobs: Annotated[Path | None, typer.Option("--jobs", metavar="CSV", help="A manifest without masks: columns image and text.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="With --jobs: only the rows of this split.")] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="A report; one mask for each finding that it affirms or doubts.")
    ] = None,
    laterality: WhoseLeft = None,
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="What to write, of png, nifti, dicom-seg, dicom-gsps and dicom-sc.")
    ] = "png",
    keep_text: Annotated[bool, typer.Option("--keep-text", help="Put the texts into DICOM objects too.")] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Let a DICOM SEG hold probabilities, not the mask.")] = False,
    engine: Annotated[Literal["auto", "torch"], typer.Option("--engine", help="What computes.")] = "auto",
    device: Device = "auto",
    with_: With = None,
    flips: Flips = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Write ID.uncertainty.png: where the answers that are averaged differ.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what is done, if this run would answer it alike.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a mask for each image and its sentence, or for each finding of a report.

    Cases that fail are listed in failures.csv and the others go on: exit 3, or 2 if nothing could be done.
    """
    from .console import print_line, print_predictions, print_reading, progress
    from .data.manifest import read_manifest
    from .errors import InputError
    from .io.series import films_in
    from .predict import Segmenter, jobs_from, jobs_from_report, load_report, predict_files

    if bool(images) == (jobs is not None) or (text, report, jobs).count(None) != 2 or (split and jobs is None):
        raise InputError("what to predict is not clear", "", "Name images and --text or --report, or --jobs alone.", "usage")
    told = "" if report is None else load_report(report)
    with films_in(images or []) as (films, found, stacks):
        cases = [] if report else jobs_from(films, text or "", stacks=stacks)
        if jobs is not None:
            dataset = read_manifest(jobs, need_masks=False)
            cases = list(dataset.split(split) if split else dataset.samples)
        for line in () if quiet else found:
            print_line(line)
        segmenter = Segmenter.from_pretrained(bundle, engine=engine, device=device, with_=tuple(with_ or ()), flips=flips)
        cases, reports = jobs_from_report(segmenter, films, told, stacks) if report else (cases, [])
        with progress(quiet, "predict") as show:
            done = predict_files(
                segmenter,
                cases,
                out,
                formats=_list(formats),
                laterality=laterality,
                overwrite=overwrite,
                resume=resume,
                progress=show,
                reports=reports,
                uncertainty=uncertainty,
                keep_text=keep_text,
                probabilities=probabilities,
                stacks=stacks,
            )
    if reports and not as_json:
        print_reading(reports[0])
    print_predictions(done, out, as_json, quiet)
    raise typer.Exit(done.exit_code)


# ---------------------------------------------------------------- what there is


@app.command(epilog="Example: reportseg info tgcnet_qata_small")
def info(
    what: Annotated[str | None, typer.Argument(metavar="[BUNDLE|CONFIG]", help="A bundle or a config; default: this installation.")] = None,
    overrides: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show facts about a bundle, a config or this installation.

    A config's parameters are counted without weights and without memory.
    """
    from .console import show
    from .info import about

    show(about(what, overrides or ()), as_json)


@app.command(epilog="Example: reportseg models")
def models(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the models that a config can name."""
    from .console import show
    from .info import known_models

    show(known_models(), as_json)


from . import cli_config, cli_data, cli_knowledge, cli_pacs, cli_study  # noqa: E402, F401 - the commands of these groups need what stands above
