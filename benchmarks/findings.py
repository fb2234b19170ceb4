"""How well reports are read: findings against mentions that a reader labelled, or, with --speed, seconds for hostile texts.

    python benchmarks/findings.py LABELS.json --half held --reports reports.csv [--out results/findings.json]
    python benchmarks/findings.py --speed

LABELS is a list of sentences {"report", "column", "start", "end", "half", "mentions": [{"start", "end", "polarity", "side"}]}: the row's
`uid`, its column, and offsets into that column as csv reads it. No text is stored. The whole column is read, as a user's report would be;
a finding belongs to the sentence in which its span begins.

Matching, in each sentence: pairs of a finding and a mention that share a character, the largest overlap first, each used once. So a
finding that swallows two mentions leaves one unmatched, and a mention that was cut in two leaves a finding unmatched.

Polarity: a pair with equal polarity is a true positive of that class; a pair with unequal polarity is a false positive of the one and a
false negative of the other; what is unmatched on either side counts as well. micro F1 = 2 TP / (findings + mentions). Side: equal sides
over the matched mentions that are present or uncertain, whatever was made of their polarity, and over those of them that have a side.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from output import finish
from reportseg.text import findings, read_report
from reportseg.types import Finding

CLASSES = ("present", "absent", "uncertain")
HOSTILE = (
    "no |no effusion, |effusion or |left lung and |heart and |normal heart, |a|? |\n|pleural |history of |FINDINGS: |findings\n|İ|💀".split(
        "|"
    )
)


def match(found: list[Finding], mentions: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Pairs (finding, mention), largest overlap first; ties go to the earlier ones."""
    pairs = []
    for i, finding in enumerate(found):
        for j, mention in enumerate(mentions):
            shared = min(finding.span[1], mention["end"]) - max(finding.span[0], mention["start"])
            if shared > 0:
                pairs.append((-shared, i, j))
    taken: list[tuple[int, int]] = []
    for _, i, j in sorted(pairs):
        if all(i != a and j != b for a, b in taken):
            taken.append((i, j))
    return taken


def score(labels: list[dict[str, Any]], reports: dict[str, dict[str, str]]) -> dict[str, Any]:
    right: Counter[str] = Counter()
    ours: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    sides: list[tuple[str | None, str | None]] = []
    matched = 0
    for sentence in labels:
        told = findings(reports[str(sentence["report"])][sentence["column"]])
        found = [finding for finding in told if sentence["start"] <= finding.span[0] < sentence["end"]]
        mentions = sentence["mentions"]
        ours.update(finding.polarity for finding in found)
        theirs.update(mention["polarity"] for mention in mentions)
        for i, j in match(found, mentions):
            matched += 1
            right[found[i].polarity] += found[i].polarity == mentions[j]["polarity"]
            if mentions[j]["polarity"] != "absent":
                sides.append((found[i].side, mentions[j]["side"]))
    f1 = {name: 2 * right[name] / (ours[name] + theirs[name]) if ours[name] + theirs[name] else None for name in CLASSES}
    known = [value for value in f1.values() if value is not None]
    return {
        "sentences": len(labels),
        "mentions": sum(theirs.values()),
        "findings": sum(ours.values()),
        "matched": matched,
        "polarity_micro_f1": 2 * sum(right.values()) / max(1, sum(ours.values()) + sum(theirs.values())),
        "polarity_macro_f1": sum(known) / max(1, len(known)),
        "polarity_f1": f1,
        "n": {name: theirs[name] for name in CLASSES},
        "side_accuracy": rate(sides),
        "side_n": len(sides),
        "side_accuracy_where_named": rate([pair for pair in sides if pair[1]]),
        "side_named_n": sum(bool(side) for _, side in sides),
    }


def rate(pairs: list[tuple[str | None, str | None]]) -> float | None:
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def speed() -> dict[str, float]:
    """Seconds of the processor for 32 KiB of each unit."""
    seconds = {}
    for unit in HOSTILE:
        started = time.process_time()
        read_report((unit * (2**15 // len(unit) + 1))[: 2**15])
        seconds[repr(unit)] = round(time.process_time() - started, 3)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", type=Path, nargs="?")
    parser.add_argument("--half", choices=["dev", "held"], default="dev")
    parser.add_argument("--reports", type=Path, help="CSV with the columns uid, findings, impression")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.speed:
        finish({"seconds": speed()}, asked.out)
        return
    if asked.labels is None or asked.reports is None:
        parser.error("name LABELS and --reports, or --speed")
    labels = [sentence for sentence in json.loads(asked.labels.read_text(encoding="utf-8")) if sentence["half"] == asked.half]
    with open(asked.reports, encoding="utf-8", newline="") as file:
        reports = {row["uid"]: row for row in csv.DictReader(file)}
    finish({"half": asked.half, **score(labels, reports)}, asked.out)


if __name__ == "__main__":
    main()
