"""The commands of `reportseg config`, each of which calls one function. As light as cli.py, which this module is a part of."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli import Json, Quiet, Set, config_app


@config_app.command("list", epilog="Example: reportseg config list")
def config_list(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the configs that ship with the program."""
    from .console import show
    from .info import known_configs

    show(known_configs(), as_json)


@config_app.command("show", epilog="Example: reportseg config show tgcnet_qata_small > mine.yaml")
def config_show(
    config: Annotated[str, typer.Argument(metavar="CONFIG|NAME", help="A YAML file, or a name of `reportseg config list`.")],
    overrides: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print a config as a run would use it, every default written out."""
    from .config import dump_config, load_config
    from .console import print_json
    from .models import resolve

    resolved = resolve(load_config(config, overrides or ()))
    if as_json:
        print_json(resolved.model_dump(mode="json"))
    else:
        print(dump_config(resolved), end="")


@config_app.command("schema", epilog="Example: reportseg config schema metrics.json")
def config_schema(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One schema; default: all, by name.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print the JSON schemas of configs, models and written files."""
    from .console import print_json
    from .info import schemas

    print_json(schemas(name))
