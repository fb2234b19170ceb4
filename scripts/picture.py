"""Draws docs/images/phantoms.png: phantom films that the demo's bundle has not seen, each asked two sentences.

python scripts/picture.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl
import numpy as np

from reportseg import Segmenter
from reportseg.data.synthetic import phantom
from reportseg.io.png import overlay_rgb

mpl.use("Agg")
from matplotlib import pyplot as plt

OUT = Path(__file__).parents[1] / "docs" / "images" / "phantoms.png"
SEED, SIZE, FILMS = 1, 384, 4


def main() -> None:
    segmenter = Segmenter.from_pretrained("demo")
    chosen = []  # films with a second finding, which the sentence leaves out: there only reading tells which one is meant
    index = 0
    while len(chosen) < FILMS:
        film = phantom(SEED, index, SIZE)
        if film.meta.other is not None and len(film.meta.areas) == 1:
            chosen.append(film)
        index += 1
    figure, axes = plt.subplots(1, FILMS, figsize=(13, 4.4), facecolor="white")
    for axis, film in zip(axes, chosen, strict=True):
        answer = segmenter.segment(film.image_HW, film.sentence, laterality="image")
        axis.imshow(overlay_rgb(film.image_HW[:, :, None] / np.float32(255), answer.mask_HW, film.mask_HW))
        axis.set_title("\n".join(textwrap.wrap(f"“{film.sentence}”", 40)), fontsize=10, loc="left", pad=8, va="bottom")
        axis.axis("off")
    figure.legend(
        handles=[plt.Line2D([], [], color=np.array(c) / 255, lw=3) for c in ((230, 159, 0), (86, 180, 233))],
        labels=["answer of the demo bundle", "true mask of the described finding"],
        loc="lower center",
        ncols=2,
        frameon=False,
        fontsize=10,
    )
    figure.subplots_adjust(left=0.01, right=0.99, top=0.86, bottom=0.09, wspace=0.05)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=110)
    print(OUT)


if __name__ == "__main__":
    main()
