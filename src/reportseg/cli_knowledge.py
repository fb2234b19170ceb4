"""The commands of `reportseg knowledge`, each of which calls one function. As light as cli.py, which this module is a part of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli import Json, Overwrite, Quiet, knowledge_app


@knowledge_app.command("show", epilog='Example: reportseg knowledge show "bilateral pulmonary infection, upper left lung"')
def knowledge_show(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A sentence.")],
    bank: Annotated[str, typer.Option("--bank", help="A shipped bank's name, or a JSON file.")] = "chest",
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="At most so many statements.")] = 8,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the statements that a sentence calls for, and why.

    Best first, each with its score and the words that called for it. Concepts take turns.
    """
    from .console import print_hits, print_json
    from .knowledge.bank import load_bank, retrieve

    loaded = load_bank(bank)
    hits = retrieve(text, loaded, top_k)
    if as_json:
        rows = [{"score": hit.score, "why": hit.why, **hit.statement.model_dump(mode="json")} for hit in hits]
        print_json({"bank": loaded.name, "sha256": loaded.sha256, "hits": rows})
    else:
        print_hits(hits)


@knowledge_app.command("check", epilog="Example: reportseg knowledge check chest")
def knowledge_check(
    bank: Annotated[str, typer.Argument(metavar="BANK|NAME", help="A JSON file, or a shipped bank's name.")],
    concepts: Annotated[Path | None, typer.Option("--concepts", help="A list, one a line, that the bank ought to cover.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check the statements of a bank.

    All findings at once; exit 2 if one is an error, 0 if there are only warnings.
    """
    from .console import print_findings
    from .knowledge.build import read_concepts
    from .knowledge.check import check, read_bank

    file = read_bank(bank)
    found = check(file, read_concepts(concepts) if concepts else ())
    print_findings(file, found, as_json)
    if any(finding.severity == "error" for finding in found):
        raise typer.Exit(2)


@knowledge_app.command(
    "build", epilog="Example: reportseg knowledge build concepts.txt -o mine.json --endpoint http://127.0.0.1:8000/v1 --model NAME"
)
def knowledge_build(
    concepts: Annotated[Path, typer.Argument(metavar="CONCEPTS", help="A text file, one concept a line; # begins a remark.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="BANK", help="JSON file to write; its stem is the bank's name.")],
    endpoint: Annotated[str | None, typer.Option("--endpoint", metavar="URL", help="An endpoint that speaks /v1/chat/completions.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model of the endpoint.")] = None,
    local: Annotated[Path | None, typer.Option("--local", metavar="DIR", help="A causal language model of transformers instead.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let a language model write a bank.

    Nothing is sent unless --endpoint names where; its key is read from REPORTSEG_API_KEY. Answers are cached: the same command goes on
    after an interruption. Exit 3 if some concepts failed.
    """
    from .console import print_built, progress
    from .errors import InputError
    from .knowledge.ask import Ask, Endpoint, local_name
    from .knowledge.ask import local as local_model
    from .knowledge.build import build, read_concepts
    from .limits import cache_root

    ask: Ask
    wanted = read_concepts(concepts)
    if endpoint and model and not local:
        ask, name = Endpoint(endpoint, model), model
    elif local and not endpoint and not model:
        ask, name = local_model(local), local_name(local)
    else:
        raise InputError("who is to be asked is not clear", "", "Name --endpoint and --model, or --local alone.", "usage")
    with progress(quiet, "asking") as report:
        built = build(wanted, out, ask, name, cache=cache_root() / "knowledge", overwrite=overwrite, progress=report)
    print_built(built, as_json, quiet)
    if built.failed:
        raise typer.Exit(3)
