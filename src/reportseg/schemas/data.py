"""dataset.json: what a manifest cannot say of its data set."""

from __future__ import annotations

from pydantic import Field

from ..types import Laterality
from .base import File, Windows


class DatasetFile(File):
    """dataset.json beside a manifest."""

    name: str = Field(min_length=1, description="Name of the data set; seeds the choice of dev.")
    root: str = Field(default=".", description="Folder that relative paths of the manifest start from, itself relative to this file.")
    laterality: Laterality = Field(default="none", description="Whose left the sentences mean: patient, image, or none.")
    laterality_source: str = Field(default="", description="What says whose left that is; begins with `assumed` where nothing does.")
    licence: str = Field(default="", description="Licence, as the owner states it.")
    citation: str = Field(default="", description="What to cite.")
    split_source: str = Field(default="", description="Where the split comes from.")
    windows: Windows = Field(default={}, description="Slices of volumes: the window that each organ was shown in.")
