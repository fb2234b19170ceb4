"""The commands of `reportseg pacs`, each of which calls one function. As light as cli.py, which this module is a part of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli import Json, Out, Quiet, _typer, app

if TYPE_CHECKING:
    from .pacs import Pacs

pacs_app = _typer("Ask a PACS over DICOMweb, fetch films from it, store masks in it. Needs the extra dicomweb.")

Url = Annotated[str, typer.Argument(metavar="URL", help="Root of its DICOMweb service, as in https://pacs.example.org/dicom-web.")]
Secrets = Annotated[
    Path | None,
    typer.Option(
        "--credentials",
        metavar="FILE",
        help='JSON that only you may read: {"user": "...", "password": "..."} or {"token": "..."}. '
        "Default: REPORTSEG_PACS_USER and REPORTSEG_PACS_PASSWORD, or REPORTSEG_PACS_TOKEN.",
    ),
]
Authority = Annotated[Path | None, typer.Option("--ca", metavar="FILE", help="Certificate (PEM) of the authority that signed the PACS's.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Do not check the PACS's certificate; anyone may then answer in its name.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds of silence after which a try has failed.")]


@pacs_app.command(
    "query", epilog="Example: reportseg pacs query https://pacs.example.org/dicom-web --patient-id 4711 --date 20260101-20260131"
)
def pacs_query(
    url: Url,
    patient_id: Annotated[str, typer.Option("--patient-id", metavar="ID", help="Patients with this id.")] = "",
    accession: Annotated[str, typer.Option("--accession", metavar="NUMBER", help="Studies with this accession number.")] = "",
    modality: Annotated[str, typer.Option("--modality", metavar="CODE", help="Studies, or series, of this modality, as in CR.")] = "",
    date: Annotated[str, typer.Option("--date", metavar="DATE", help="Studies of a day, 20260131, or of days, 20260101-20260131.")] = "",
    study: Annotated[str, typer.Option("--study", metavar="UID", help="List the series of this study instead.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many rows.")] = 100,
    credentials: Secrets = None,
    ca: Authority = None,
    insecure: Insecure = False,
    timeout: Timeout = 60,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the studies of a PACS that fit, or the series of one.

    Names of patients are not asked for. What is listed goes to stdout and nowhere else.
    """
    from .console import print_rows
    from .errors import InputError
    from .pacs import series_of, studies

    given = {"patient_id": patient_id, "accession": accession, "date": date}
    filters = {name: value for name, value in given.items() if value}
    if study and filters:
        raise InputError("--study stands alone, or with --modality", "--study", "Leave the other filters out.", "usage")
    pacs = _pacs(url, credentials, ca, insecure, timeout, quiet)
    if study:
        rows, more = series_of(pacs, study, modality, limit)
    else:
        rows, more = studies(pacs, filters | ({"modality": modality} if modality else {}), limit)
    print_rows("series" if study else "studies", rows, more, as_json)


@pacs_app.command("fetch", epilog="Example: reportseg pacs fetch https://pacs.example.org/dicom-web 1.2.840.99.1 -o films")
def pacs_fetch(
    url: Url,
    study: Annotated[str, typer.Argument(metavar="STUDY", help="UID of a study, as `pacs query` lists it.")],
    out: Out,
    series: Annotated[str | None, typer.Option("--series", metavar="UID", help="Only this series.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the files that lie there, fetch the others.")] = False,
    credentials: Secrets = None,
    ca: Authority = None,
    insecure: Insecure = False,
    timeout: Timeout = 60,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a study or a series as files, in a folder that `predict` reads.

    Files and folders are named by UIDs. Exit 3 if some objects failed.
    """
    from .console import print_fetched, progress
    from .pacs import fetch

    pacs = _pacs(url, credentials, ca, insecure, timeout, quiet)
    with progress(quiet, "fetching") as report:
        done = fetch(pacs, study, series, out, resume=resume, progress=report)
    print_fetched(done, as_json)
    if done.failed:
        raise typer.Exit(3)


@pacs_app.command("store", epilog="Example: reportseg pacs store https://pacs.example.org/dicom-web out/*.seg.dcm out/*.gsps.dcm")
def pacs_store(
    url: Url,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="DICOM files, as `predict --format dicom-seg` writes them.")],
    credentials: Secrets = None,
    ca: Authority = None,
    insecure: Insecure = False,
    timeout: Timeout = 60,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Store objects in a PACS, read each back and compare.

    An object counts as stored only if what the PACS then has is equal: by bytes, or by content where the PACS wrote the file anew.
    Exit 3 if some failed.
    """
    from .console import print_stored, progress
    from .pacs import store

    pacs = _pacs(url, credentials, ca, insecure, timeout, quiet)
    with progress(quiet, "storing") as report:
        stored, failed = store(pacs, files, report)
    print_stored(stored, failed, as_json)
    if failed:
        raise typer.Exit(3)


def _pacs(url: str, credentials: Path | None, ca: Path | None, insecure: bool, timeout_s: float, quiet: bool) -> Pacs:
    """The PACS that the options name; what is unsafe about it is said on stderr. InputError: those of open_pacs."""
    from .console import print_line
    from .pacs import open_pacs

    pacs = open_pacs(url, credentials, ca=ca, insecure=insecure, timeout_s=timeout_s)
    for warning in [] if quiet else pacs.wire.warnings:
        print_line(f"warning: {warning}")
    return pacs


app.add_typer(pacs_app, name="pacs")
