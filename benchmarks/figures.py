"""Figures of docs/ as SVG files: what the text bought, side by side, from the files of `study text`.

    python benchmarks/figures.py docs/images/text-qata.svg TGC-Net=results/qata/text-tgcnet/text.json TMCA=results/qata/text-tmca/text.json

Those of the bench are drawn with its page (bench_page.py).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from reportseg.charts import WIDTH
from reportseg.limits import atomic_write
from reportseg.page import Html, el
from reportseg.schemas.base import read_json
from reportseg.schemas.studies import TextStudy
from reportseg.studies.text_page import ladder

GAP, TOP, LINE, KEY = 24, 30, 20, 200
#: A picture in a page knows nothing of the page's theme: one set of colours on a ground of its own.
STYLE = """
text { font: 11.5px system-ui, sans-serif; fill: #1b1f23; font-variant-numeric: tabular-nums; }
.strong { font-weight: 600; } .tick { fill: #565e66; } .grid { stroke: #e9ebec; } .axis { stroke: #565e66; }
.halo { paint-order: stroke; stroke: #fff; stroke-width: 4px; stroke-linejoin: round; }
.zero { stroke: #1b1f23; stroke-dasharray: 3 3; } .range { stroke: #0b6b73; stroke-width: 7; opacity: 0.35; }
.c0 { fill: #565e66; } .c1 { fill: #0b6b73; } .c2 { fill: #b04a1c; } .c3 { fill: #6b4a9c; } .c4 { fill: #7d6500; }
.curve { fill: none; stroke: #6b4a9c; stroke-width: 2; } .d2 { stroke-dasharray: 7 4; }
.bar { opacity: 0.85; } .gap { opacity: 0.28; }
"""


def beside(plots: Mapping[str, Html], key: Sequence[str] = ()) -> str:
    """One SVG file of plots of `reportseg.charts`, side by side, each below its name; under them a `key`, in as many columns as fit."""
    heights = [float(re.search(r'viewBox="0 0 \S+ (\S+)"', plot)[1]) for plot in plots.values()]  # type: ignore[index]
    width, height = len(plots) * (WIDTH + GAP) - GAP, TOP + int(max(heights)) + 2
    columns = max(1, width // KEY)
    foot, height = height, height + LINE * -(-len(key) // columns) + (LINE if key else 0)
    parts = [el("style", Html(STYLE)), el("rect", width=width, height=height, rx=8, fill="#fff")]
    for i, ((name, plot), h) in enumerate(zip(plots.items(), heights, strict=True)):
        x = i * (WIDTH + GAP)
        parts.append(el("text", name, class_="strong", x=x + 12, y=20))
        parts.append(Html(plot.replace("<svg ", f'<svg x="{x}" y="{TOP}" width="{WIDTH}" height="{h:.0f}" ', 1)))
    for i, says in enumerate(key):
        parts.append(el("text", says, x=12 + i % columns * KEY, y=foot + LINE * (i // columns) + LINE * 4 // 5))
    return el("svg", *parts, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}", width=width, height=height) + "\n"


def main() -> None:
    out, *named = sys.argv[1:]
    files = dict(one.split("=", 1) for one in named)
    atomic_write(Path(out), beside({name: ladder(read_json(Path(file), TextStudy)) for name, file in files.items()}))


if __name__ == "__main__":
    main()
