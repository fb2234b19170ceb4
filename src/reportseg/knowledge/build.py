"""Builds a bank: asks a language model about each concept, keeps what passes the rules, says what it dropped and what it cost.

Answers are cached by prompt version, model and concept, so an interrupted build goes on where it stopped, and a repeated one asks nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reportseg.errors import InputError
from reportseg.limits import atomic_write, check_file
from reportseg.schemas.base import load_json, write_json
from reportseg.schemas.knowledge import BankFile, Statement
from reportseg.text import has_side, normalise, words

from .ask import Answer, Ask, NoAnswerError
from .bank import from_file
from .rules import NEUTRAL, faults

PROMPT = "1"  # raise it with every change of the two texts below: the cache and the bank name it
INSTRUCTIONS = """You write short statements about how things look in medical images, for a computer that has to outline them.
Each statement is one sentence of 8 to 30 words in plain English and says something that can be seen: how bright it is (density), how its \
border looks (margin), its shape or texture (appearance), where it lies or spreads (distribution), what lies beside it (anatomy), or what \
imitates it and how to tell (mimic). No advice, no treatment, no numbers that cannot be seen, no mention of a single patient.
Name left or right only where anatomy demands it; then it is the patient's side. Write the words out in full.
Answer with one JSON object and nothing else:
{"statements": [{"kind": "density", "statement": "...", "terms": ["...", "..."]}]}
kind is one of density, margin, appearance, distribution, anatomy, mimic. terms are words or short phrases of a report that mean \
the concept."""
QUESTION = "Write four statements, each of another kind, about this concept: {concept}"

MAX_CONCEPTS = 2_000
MAX_LIST_BYTES = 1 << 20
MAX_CONCEPT_WORDS = 20
MAX_PER_CONCEPT = 20  # statements; a model that writes more was not answering the question
MAX_TERMS = 20
SILENT = 2  # concepts in a row that get no answer before the endpoint is taken to be down


@dataclass
class Built:
    """How a build ended. Tokens are those of the fresh answers; `estimated` says that some were not counted by the model's side."""

    bank: Path
    statements: int = 0
    concepts: int = 0
    fresh: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    estimated: bool = False
    dropped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str, str]] = field(default_factory=list)


def read_concepts(path: str | Path) -> list[str]:
    """One concept a line, each once; empty lines and lines that begin with # are left out. InputError bad_concepts names the line."""
    file = check_file(path)
    if file.stat().st_size > MAX_LIST_BYTES:
        raise InputError(f"the list is longer than {MAX_LIST_BYTES >> 20} MiB", path, "One concept a line.", "bad_concepts")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError("the list is not UTF-8 text", path, "Save it as UTF-8.", "bad_concepts") from error
    concepts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        concept = " ".join(line.split())
        if not concept or concept.startswith("#"):
            continue
        if not 0 < len(words(concept)) <= MAX_CONCEPT_WORDS or not concept.isprintable() or len(concept) > 200:
            raise InputError(f"line {number} is no concept", path, "A few words a line, as in: pleural effusion.", "bad_concepts")
        concepts.setdefault(normalise(concept), concept)
    if not 0 < len(concepts) <= MAX_CONCEPTS:
        raise InputError(f"the list has {len(concepts)} concepts", path, f"Between 1 and {MAX_CONCEPTS} are asked for.", "bad_concepts")
    return list(concepts.values())


def build(
    concepts: Sequence[str],
    out: str | Path,
    ask: Ask,
    model: str,
    *,
    cache: str | Path,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Asks about each concept and writes the bank, named after the file. What failed is in the result; the rest is written.

    InputError: exists, no_statements (nothing is written), and what `ask` raises where no question will do. Answers so far stay cached.
    """
    target = Path(out)
    if target.exists() and not overwrite:
        raise InputError("the bank exists", out, "Give --overwrite, or another file with -o.", "exists")
    built = Built(target, concepts=len(concepts))
    kept: list[Statement] = []
    seen: set[str] = set()
    silent = 0
    for done, concept in enumerate(concepts):
        if progress is not None:
            progress(done, len(concepts))
        if silent >= SILENT:
            built.failed.append((concept, "not_asked", "the endpoint no longer answers"))
            continue
        try:
            answer, written, fresh = _ask_once(concept, ask, model, Path(cache))
            found, dropped = _statements(answer.text, concept, model, written)
            if fresh:
                _store(_file(Path(cache), concept, model), concept, model, written, answer)
        except NoAnswerError as error:
            silent = silent + 1 if error.down else 0
            built.failed.append((concept, error.code, error.what))
            continue
        silent = 0
        built.cached += not fresh
        if fresh:
            built.fresh += 1
            built.prompt_tokens += answer.prompt_tokens
            built.answer_tokens += answer.answer_tokens
            built.estimated |= answer.estimated
        for statement in found:
            if normalise(statement.statement) in seen:
                dropped.append("repeats an earlier statement")
            else:
                seen.add(normalise(statement.statement))
                kept.append(statement)
        built.dropped += [(concept, what) for what in dropped]
    if progress is not None:
        progress(len(concepts), len(concepts))
    built.statements = len(kept)
    if not kept:
        why = built.failed[0][2] if built.failed else built.dropped[0][1] if built.dropped else "the model wrote none"
        fix = "The same command goes on where it stopped." if silent else "Try another model."
        raise InputError(f"no statement came of it: {why}", out, fix, "no_statements")
    description = f"Drafted by a language model ({model}), prompt {PROMPT}, not reviewed by a clinician. Sides are the patient's."
    file = BankFile(name=target.stem or "bank", description=description, statements=kept)
    from_file(file, out)
    write_json(out, file)
    return built


def _ask_once(concept: str, ask: Ask, model: str, cache: Path) -> tuple[Answer, str, bool]:
    """The answer, the day that it was written, and whether it was asked for just now."""
    stored = _load(_file(cache, concept, model), concept, model)
    return (*stored, False) if stored else (ask(INSTRUCTIONS, QUESTION.format(concept=concept)), date.today().isoformat(), True)


# ---------------------------------------------------------------- what came back

_THOUGHT = re.compile(r"^.*</think>", re.DOTALL)


def _statements(text: str, concept: str, model: str, written: str) -> tuple[list[Statement], list[str]]:
    """The statements of an answer that keep the rules, and for each other one what is wrong. NoAnswerError where it holds no such list."""
    text = _THOUGHT.sub("", text)  # some models think aloud first
    try:
        rows = json.loads(text[text.index("{") : text.rindex("}") + 1])["statements"]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise NoAnswerError("bad_answer", "the model did not answer with the JSON that was asked for") from None
    if not isinstance(rows, list):
        raise NoAnswerError("bad_answer", "the model's statements are no list")
    kept, dropped = [], [f"{len(rows) - MAX_PER_CONCEPT} statements are more than {MAX_PER_CONCEPT}"] if len(rows) > MAX_PER_CONCEPT else []
    for row in rows[:MAX_PER_CONCEPT]:
        try:
            statement = _statement(row, concept, model, written)
        except (ValidationError, TypeError, LookupError, AttributeError):
            dropped.append("is no statement of the form that was asked for")
            continue
        wrong = [what for _, what in faults(statement)] + ["is of kind neutral"] * (statement.kind == NEUTRAL)
        kept += [] if wrong else [statement]
        dropped += ["; ".join(wrong)] if wrong else []
    return kept, dropped


def _statement(row: Any, concept: str, model: str, written: str) -> Statement:
    sentence = " ".join(row["statement"].split())
    terms = {normalise(term): " ".join(term.split()) for term in row.get("terms") or []}
    usable = [term for key, term in terms.items() if 0 < len(words(term)) <= 6 and len(term) <= 80 and key != normalise(concept)]
    return Statement(
        concept=concept,
        kind=row["kind"],
        statement=sentence,
        terms=usable[:MAX_TERMS],
        laterality="patient" if has_side(sentence) else "none",
        source=f"drafted by a language model, prompt {PROMPT}",
        model=model,
        date=written,
    )


# ---------------------------------------------------------------- the cache


def _file(cache: Path, concept: str, model: str) -> Path:
    return cache / f"{hashlib.sha256(json.dumps([PROMPT, model, concept]).encode()).hexdigest()[:32]}.json"


def _store(file: Path, concept: str, model: str, written: str, answer: Answer) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    row = {"prompt": PROMPT, "model": model, "concept": concept, "date": written, **asdict(answer)}
    atomic_write(file, json.dumps(row, indent=1))


def _load(file: Path, concept: str, model: str) -> tuple[Answer, str] | None:
    """A stored answer; None where there is none, or where the file is not what it should be: then the question is asked anew."""
    if not file.is_file():
        return None
    try:
        row = load_json(file)
        if [row.pop(key) for key in ("prompt", "model", "concept")] != [PROMPT, model, concept]:
            return None
        written = date.fromisoformat(row.pop("date")).isoformat()
        answer = Answer(**row)
    except (InputError, TypeError, ValueError, LookupError, AttributeError):
        return None
    return (answer, written) if isinstance(answer.text, str) else None
