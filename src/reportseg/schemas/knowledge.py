"""A bank of knowledge: statements about the words of reports."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..types import Laterality
from .base import File


class Statement(File):
    """One statement of a knowledge bank."""

    concept: str = Field(min_length=1, description="What it is about, e.g. pleural effusion.")
    kind: str = Field(pattern=r"^[a-z][a-z_-]*$", description="Kind of statement; `neutral` ones are controls and never retrieved.")
    statement: str = Field(min_length=1, description="The sentence that the model reads.")
    terms: list[str] = Field(default=[], description="Words and phrases of a report that call for it.")
    laterality: Laterality = Field(default="none", description="Whose left its side words mean; none where it has none.")
    source: str = Field(default="", description="Where the knowledge comes from.")
    model: str | None = Field(default=None, description="Language model that worded it; null where a person did.")
    date: str = Field(default="", pattern=r"^(\d{4}-\d{2}-\d{2})?$", description="When it was written, YYYY-MM-DD.")
    reviewed_by: str | None = Field(default=None, description="Who checked it; null while nobody has.")


class BankFile(File):
    """A knowledge bank."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this file.")
    name: str = Field(min_length=1, description="Name of the bank.")
    licence: str = Field(default="", description="Licence of the statements.")
    description: str = Field(default="", description="What the bank is for.")
    statements: list[Statement] = Field(description="The statements.")
