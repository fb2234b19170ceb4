"""The ConvNeXt (Liu et al. 2022) of the models that have no other image tower: from random initialisation, or pretrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..schemas.bundle import Tower as Record
from .assembly import Tower, open_tower
from .towers import ConvNeXt

SCALE = 0.1  # of each branch at its start, as in TMCA's tower; 1e-6 is for schedules many times longer


@dataclass(frozen=True)
class Pyramid:
    """Channels and blocks at strides 4, 8, 16 and 32."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int] = (3, 3, 9, 3)

    def layout(self) -> dict[str, Any]:
        """As a config.json has it."""
        return {"model_type": "convnext", "hidden_sizes": list(self.widths), "depths": list(self.depths)}


def build_convnext(p: Pyramid, section: Tower, record: Record | None, only_laid_out: bool) -> tuple[ConvNeXt, Record]:
    """The tower that `section` describes, of the sizes of `p` where it is from random initialisation or only laid out, and what a bundle
    records of it.
    """
    if section.source != "scratch":
        return open_tower("convnext", section, record, p.layout() if only_laid_out else None)
    tower = ConvNeXt(p.layout() | {"layer_scale_init_value": SCALE})
    tower.regime("full")
    return tower, Record()
