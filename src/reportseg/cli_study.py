"""The commands of `reportseg study`, each of which calls one function. As light as cli.py, which this module is a part of."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .cli import Device, Json, Out, Quiet, Set, _list, _typer, app

study_app = _typer("Studies with a plan that is written first: each one command that can be resumed, with a page and a JSON file.")

Resume = Annotated[bool, typer.Option("--resume", help="Go on with the study that lies there; repeat the command otherwise.")]
Metric = Annotated[str, typer.Option("--metric", help="The score that the answer is read from.")]
Split = Annotated[str, typer.Option("--split", help="Split to score; dev: a tenth of the training films that no run sees.")]
Data = Annotated[Path | None, typer.Option("--data", help="manifest.csv or its folder; default: the config's.")]
Config = Annotated[str, typer.Argument(metavar="CONFIG|NAME", help="A YAML file, or a name of `reportseg config list`.")]
Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle folder, a shipped name such as demo, or hf:owner/name.")]
Seeds = Annotated[str, typer.Option("--seeds", metavar="LIST", help="Seeds of every arm, as in 0,1.")]


@study_app.command(
    "ablate", epilog="Example: reportseg study ablate tgcnet_qata_small --data qata -s model.vlcm.enabled=false -o runs/ablate"
)
def study_ablate(
    ctx: typer.Context,
    config: Config,
    out: Out,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", metavar="KEY=VALUE", help="A key of model, or data.text: one arm with this change. Any other: changes all arms."
        ),
    ] = None,
    manifest: Data = None,
    seeds: Seeds = "0,1",
    metric: Metric = "dice_mean",
    smallest: Annotated[float, typer.Option("--smallest", help="Smallest effect of interest, as a fraction.")] = 0.003,
    split: Split = "val",
    resume: Resume = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a configuration with and without its parts, and say of each whether it helps.

    The plan is written before the first training, and a resume with another one is refused. A training that diverges fails its arm and
    stops no other: exit 3, and --resume tries it again.
    """
    from .console import print_study, progress
    from .studies.ablate import PAGE, ablate
    from .studies.shown import ablation_lines

    with progress(quiet, "study") as report:
        done = ablate(
            config,
            overrides or [],
            out=out,
            seeds=numbers(seeds),
            metric=metric,
            smallest=smallest,
            manifest=manifest,
            split=split,
            resume=resume,
            device=device,
            command=shlex.join(["reportseg", *ctx.obj]),
            progress=report,
        )
    print_study(done, ablation_lines(done), out / PAGE, as_json, quiet)
    if any(arm.failed for arm in done.arms):
        raise typer.Exit(3)


@study_app.command(
    "text", epilog="Example: reportseg study text runs/first/bundle qata --split val --twin runs/twin/val -o runs/first/text"
)
def study_text(
    ctx: typer.Context,
    bundle: Bundle,
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="manifest.csv or its folder.")],
    out: Out,
    split: Annotated[str, typer.Option("--split", help="Split to score.")] = "val",
    columns: Annotated[
        str, typer.Option("--text-columns", metavar="LIST", help="Further columns of the manifest with texts, as a paraphrase.")
    ] = "",
    twin: Annotated[Path | None, typer.Option("--twin", help="Evaluation folder of the text-free twin.")] = None,
    metric: Metric = "dice_mean",
    resume: Resume = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a bundle under its sentences, none, others' and further columns: what the text bought.

    The further columns come with the data set, or with `reportseg data import --join`.
    """
    from .console import print_study, progress
    from .studies.shown import text_lines
    from .studies.text import PAGE, text

    with progress(quiet, "study") as report:
        done = text(
            bundle,
            manifest,
            out=out,
            split=split,
            columns=_list(columns),
            twin=twin,
            metric=metric,
            resume=resume,
            device=device,
            command=shlex.join(["reportseg", *ctx.obj]),
            progress=report,
        )
    print_study(done, text_lines(done), out / PAGE, as_json, quiet)


@study_app.command("data", epilog="Example: reportseg study data tgcnet_qata_small --data qata --shares 0.1,0.25,0.5,1 -o runs/data")
def study_data(
    ctx: typer.Context,
    config: Config,
    out: Out,
    overrides: Set = None,
    manifest: Data = None,
    shares: Annotated[str, typer.Option("--shares", metavar="LIST", help="Shares of the training films.")] = "0.1,0.25,0.5,1",
    seeds: Seeds = "0",
    metric: Metric = "dice_mean",
    split: Split = "val",
    resume: Resume = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on growing shares of the films, whole patients, each within the next: what more films buy.

    A training that diverges fails its share and stops no other: exit 3, and --resume tries it again.
    """
    from .console import print_study, progress
    from .studies.data import PAGE, data
    from .studies.shown import data_lines

    with progress(quiet, "study") as report:
        done = data(
            config,
            overrides or [],
            out=out,
            shares=fractions(shares),
            seeds=numbers(seeds),
            metric=metric,
            manifest=manifest,
            split=split,
            resume=resume,
            device=device,
            command=shlex.join(["reportseg", *ctx.obj]),
            progress=report,
        )
    print_study(done, data_lines(done), out / PAGE, as_json, quiet)
    if any(share.failed for share in done.shares):
        raise typer.Exit(3)


@study_app.command("transfer", epilog="Example: reportseg study transfer runs/first/bundle qata mosmed --split val,test -o runs/transfer")
def study_transfer(
    ctx: typer.Context,
    named: Annotated[list[str], typer.Argument(metavar="BUNDLE... MANIFEST...", help="Bundles, then manifests or their folders.")],
    out: Out,
    split: Annotated[
        str, typer.Option("--split", metavar="LIST", help="Split to score; or one for each manifest, as in val,test.")
    ] = "val",
    metric: Metric = "dice_mean",
    resume: Resume = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score bundles on data that they were not trained on, beside their own."""
    from .console import print_study, progress
    from .studies.shown import transfer_lines
    from .studies.transfer import PAGE, transfer

    with progress(quiet, "study") as report:
        done = transfer(
            named,
            out=out,
            splits=_list(split),
            metric=metric,
            resume=resume,
            device=device,
            command=shlex.join(["reportseg", *ctx.obj]),
            progress=report,
        )
    print_study(done, transfer_lines(done), out / PAGE, as_json, quiet)


@study_app.command(
    "cost",
    epilog="Example: reportseg study cost tgcnet_qata_small tmca_qata_small --scores runs/tgcnet/val --scores runs/tmca/val -o runs/cost",
)
def study_cost(
    ctx: typer.Context,
    named: Annotated[list[str], typer.Argument(metavar="CONFIG|BUNDLE...", help="Configurations, by name or file, and bundles.")],
    out: Out,
    scores: Annotated[
        list[Path] | None, typer.Option("--scores", metavar="DIR", help="Evaluation folder of one of them, for the plots; may be repeated.")
    ] = None,
    size: Annotated[int, typer.Option("--size", help="Side of the films in pixels.")] = 224,
    batch: Annotated[int, typer.Option("--batch", help="Films of a training step.")] = 8,
    metric: Metric = "dice_mean",
    resume: Resume = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure parameters, operations, memory and time of models beside those of the 31 M U-Net.

    Each model is timed in turns with the U-Net in one process; no weights are fetched for a configuration.
    """
    from .console import print_study, progress
    from .studies.cost import PAGE, cost
    from .studies.shown import cost_lines

    with progress(quiet, "study") as report:
        done = cost(
            named,
            out=out,
            scores=scores or [],
            size_px=size,
            batch=batch,
            device=device,
            metric=metric,
            resume=resume,
            command=shlex.join(["reportseg", *ctx.obj]),
            progress=report,
        )
    print_study(done, cost_lines(done), out / PAGE, as_json, quiet)


def numbers(text: str) -> list[int]:
    """A list of seeds. InputError seeds."""
    from .errors import InputError

    parts = _list(text)
    if not all(part.isdecimal() and int(part) < 2**31 for part in parts):
        raise InputError(f"{text!r} is not a list of seeds", "--seeds", "Give whole numbers, as in 0,1,2.", "seeds")
    return [int(part) for part in parts]


def fractions(text: str) -> list[float]:
    """A list of shares. InputError shares."""
    from .errors import InputError

    try:
        return [float(part) for part in _list(text)]
    except ValueError:
        raise InputError(f"{text!r} is not a list of shares", "--shares", "Give fractions, as in 0.1,0.25,0.5,1.", "shares") from None


app.add_typer(study_app, name="study")
