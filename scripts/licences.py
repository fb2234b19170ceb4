"""scripts/licences.py [PYTHON]   lists the licences of what is installed for PYTHON; fails on GPL and AGPL (LGPL is fine)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter

REFUSED = re.compile(r"\bA?GPL|GNU (Affero )?General Public", re.IGNORECASE)
EXEMPT = re.compile(r"GCC-exception", re.IGNORECASE)  # of compilers' run-time libraries: binds nobody who links them


def refused(licence: str) -> bool:
    """Whether every way to read the licence is GPL or AGPL: "MIT OR GPL-2.0" leaves a choice."""
    return all(REFUSED.search(way) and not EXEMPT.search(way) for way in re.split(r"\bOR\b", licence))


def main(python: str) -> int:
    command = [sys.executable, "-m", "piplicenses", "--python", python, "--format", "json", "--from", "all"]
    packages = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found = []
    for package in packages:
        stated = [package.get(f"License-{key}", "UNKNOWN") for key in ("Expression", "Classifier", "Metadata")]
        licence = next((text.strip().splitlines()[0] for text in stated if text.strip() not in ("", "UNKNOWN")), "not stated")
        found.append((f"{package['Name']} {package['Version']}", licence))
    for licence, n in Counter(licence[:60] for _, licence in found).most_common():
        print(f"{n:4d}  {licence}")
    bad = [f"{name}: {licence}" for name, licence in found if refused(licence)]
    for line in bad:
        print(f"refused: {line}", file=sys.stderr)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else sys.executable))
