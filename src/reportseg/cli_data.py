"""The commands of `reportseg data`, each of which calls one function. As light as cli.py, which this module is a part of."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .cli import Column, Json, Out, Overwrite, Quiet, WhoseLeft, data_app


@data_app.command("import", epilog="Example: reportseg data import lvit QaTa-COV19 -o qata")
def data_import(
    layout: Annotated[
        str, typer.Argument(metavar="LAYOUT", help="lvit, mosmed, languidemedseg, medvlsm, folder; volumes: msd, word, abdomenct1k.")
    ],
    src: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of the data set; with folder also the table itself.")],
    out: Out,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files too, else the manifest refers to them.")] = False,
    join: Annotated[list[Path] | None, typer.Option("--join", metavar="CSV", help="Add columns by file stem; may be repeated.")] = None,
    laterality: WhoseLeft = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the data set; default: the folder's.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Of medvlsm: the prompt that becomes the text; default p6.")] = None,
    windows: Annotated[
        Path | None, typer.Option("--windows", metavar="YAML", help="Of volumes: windows of organs, as in `liver: [60, 200]`.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a manifest for a data set in a known layout.

    The folder -o gets manifest.csv and dataset.json; the films stay where they are unless --copy is given. Volumes become slices, which are
    written there.
    """
    from .config import load_windows
    from .console import print_json, progress
    from .data.importers import import_data

    with progress(quiet, "volumes") as report:
        done = import_data(
            layout,
            src,
            out,
            copy=copy,
            join=tuple(join or ()),
            laterality=laterality,
            name=name,
            prompt=prompt,
            windows=None if windows is None else load_windows(windows),
            overwrite=overwrite,
            progress=report,
        )
    if as_json:
        whose = {"laterality": done.laterality, "laterality_source": done.laterality_source}
        print_json({"manifest": done.manifest, "n": done.n, **whose, "messages": done.messages})
        return
    for message in () if quiet else done.messages:
        print(message, file=sys.stderr)
    print(f"{done.manifest}: " + ", ".join(f"{n} {split or 'without a split'}" for split, n in done.n.items()))
    print(f"laterality: {done.laterality}" + f" ({done.laterality_source})" * bool(done.laterality_source))


@data_app.command("verify", epilog="Example: reportseg data verify qata")
def data_verify(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="manifest.csv or its folder.")],
    text_column: Column = "text",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check every row, file, mask and sentence of a manifest.

    All findings at once; exit 2 if one is an error, 0 if there are only warnings.
    """
    from dataclasses import asdict

    from .console import print_json
    from .data.manifest import read_manifest
    from .data.verify import verify

    found = verify(read_manifest(manifest, text_column=text_column))
    if as_json:
        print_json({"errors": len(found.errors), "warnings": len(found.warnings), **asdict(found)})
    else:
        for issue in found:
            print(f"{issue.severity}: {issue}")
        for line in found.summary:
            print(line)
    if found.errors:
        raise typer.Exit(2)


@data_app.command("synth", epilog="Example: reportseg data synth -o phantoms -n 300")
def data_synth(
    out: Out,
    n: Annotated[int, typer.Option("-n", help="Number of films.")],
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same films.")] = 0,
    size: Annotated[int, typer.Option("--size", help="Side of a film in pixels.")] = 128,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw phantom chest films with masks and sentences.

    The sentences tell side, zone and number of the opacities. Splits keep patients apart.
    """
    from .console import print_json, progress
    from .data.synthetic import synthesise

    with progress(quiet, "drawing") as report:
        manifest = synthesise(out, n, seed=seed, size=size, progress=report)
    if as_json:
        print_json({"manifest": manifest, "n": n})
    else:
        print(manifest)
