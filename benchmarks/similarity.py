"""VLCM's mechanism: does calibration tell inside from outside better than the similarities that it starts from?

    python benchmarks/similarity.py BUNDLE MANIFEST --split val [--out results/similarity.json]

For every film the AUROC of r (raw), u_s (own projection) and S_s (calibrated) against the cells that are at least half inside the mask, at
strides 4, 8, 16 and 32, then the mean paired differences S_s - u_s and S_s - r with a bootstrap of patients. In the pretrained regime the
mechanism works if S beats r; from scratch nothing but its own loss aligns r, so u counts too, and the verdict is the ablation's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from output import finish
from reportseg.bundle import load_bundle
from reportseg.data.loader import prepare_image
from reportseg.data.manifest import read_manifest
from reportseg.dev import separation
from reportseg.engines import TorchEngine
from reportseg.io import read_image, read_mask
from reportseg.losses import area_average
from reportseg.models.tgcnet import STRIDES
from reportseg.types import Sample

BATCH, DRAWS = 16, 2000


def auroc(engine: TorchEngine, samples: list[Sample], side: int) -> dict[str, NDArray[np.float64]]:
    """Of each map, one value a film, NaN where a film has no cell inside or none outside."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for first in range(0, len(samples), BATCH):
        part = samples[first : first + BATCH]
        films = torch.stack([prepare_image(read_image(s.image), side) for s in part])
        masks = torch.cat([area_average(torch.from_numpy(read_mask(s.mask))[None, None], (side, side)) for s in part]) >= 0.5
        output = engine.decode(engine.encode_image(films), engine.encode_text([s.text for s in part]), masks.to(engine.device))
        for name, values in output.maps.items():
            found.setdefault(name, []).append(separation(values, masks.to(values.device)))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def interval(values_N: NDArray[np.float64], patients: list[str]) -> list[float] | None:
    """Mean with its 95 % interval over draws of whole patients; films that have no value are left out, None where no film has one."""
    told = ~np.isnan(values_N)
    if not told.any():
        return None
    labels = np.unique(np.array(patients)[told], return_inverse=True)[1]
    sums, counts = np.bincount(labels, values_N[told]), np.bincount(labels)
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return [float(values_N[told].mean()), *map(float, np.percentile(means, [2.5, 97.5]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("manifest")
    parser.add_argument("--split", default="val")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    bundle, samples = load_bundle(asked.bundle), read_manifest(asked.manifest).split(asked.split)
    maps = auroc(TorchEngine(bundle.model), samples, bundle.config.preprocess.size_px)
    patients = [s.patient or s.id for s in samples]
    result: dict[str, object] = {"bundle_sha256": bundle.sha256, "split": asked.split, "n": len(samples)}
    result["auroc"] = {name: interval(values, patients) for name, values in maps.items()}
    result["difference"] = {f"S{s} - {other}": interval(maps[f"S{s}"] - maps[other], patients) for s in STRIDES for other in (f"u{s}", "r")}
    finish(result, asked.out)


if __name__ == "__main__":
    main()
