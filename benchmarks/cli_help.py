"""Time of `reportseg --help` beside that of importing typer and rich, the least a friendly command line can cost.

    python benchmarks/cli_help.py [--runs 15]

Prints a table and a line of JSON. The project's bound is a ratio of 2.5.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

BOUND = 2.5
CASES = {
    "import typer, rich.console": "import typer, rich.console",
    "reportseg --help": "import sys; sys.argv = ['reportseg', '--help']; from reportseg.cli import app; app()",
    "reportseg train --help": "import sys; sys.argv = ['reportseg', 'train', '--help']; from reportseg.cli import app; app()",
}


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    for code in CASES.values():
        seconds(code)  # files into the system's cache
    # In turns, so that a busy moment of the machine falls on all cases alike; the median of the runs.
    times = [{name: seconds(code) for name, code in CASES.items()} for _ in range(runs)]
    median = {name: statistics.median(t[name] for t in times) for name in CASES}
    base = next(iter(median.values()))
    for name, value in median.items():
        print(f"{name:<28} {1000 * value:7.1f} ms  {value / base:5.2f} x")
    ratio = median["reportseg --help"] / base
    print(
        json.dumps({"ms": {name: round(1000 * v, 1) for name, v in median.items()}, "ratio": round(ratio, 3), "bound": BOUND, "runs": runs})
    )


if __name__ == "__main__":
    main()
