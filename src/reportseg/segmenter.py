"""A film and a sentence in, a mask on the film's own grid out.

What a sentence asks is settled before a model reads it: whose left it means, whether it denies, which of its words are known. What was
assumed, or had no effect, is a warning in the answer. Shapes: B films, H,W the native grid of a film.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from .bundle import Bundle, load_bundle
from .data.loader import prepare_image
from .decision import Decision, decide
from .engines import TorchEngine, mirrored_film, mirrored_text
from .errors import InputError
from .io import image_from_array, image_from_pil, read_image
from .limits import DEFAULT, Limits, check_text, finding_id, safe_id
from .members import Average, Member, is_twin
from .schemas.bundle import DecisionConfig
from .text import (
    NAMED,
    SIDES,
    Reading,
    has_side,
    is_negated,
    read_report,
)
from .types import Finding, Image, Laterality, Polarity, Prediction, Side
from .uncertainty import disagreement, expected_dice, spread

ENGINES = ("auto", "torch")
SIDE_SHARE = 0.1  # a half of the film counts as touched if it holds this share of the mask's area: less is the edge of a midline finding
BATCH = 8  # films computed together

Source = str | Path | bytes | NDArray[Any] | PIL.Image.Image | Image


@dataclass(frozen=True)
class Question:
    """A text as it is put to the models: `prompts[i]` goes to bundle i, with the mirrored film `mirrored[i]`; empty where the answer is
    not averaged with that to the mirrored film. `laterality` says whose left the answer's side means.
    """

    text: str
    prompts: tuple[str, ...]
    laterality: Laterality
    denied: bool = False
    warnings: tuple[str, ...] = ()
    unknown_words: tuple[str, ...] = ()  # those behind out_of_vocabulary
    finding: Finding | None = None
    mirrored: tuple[str, ...] = ()

    @property
    def polarity(self) -> Polarity:
        """Absent where the text itself denies; else as the report's finding says, and present for a prompt."""
        return "absent" if self.denied else self.finding.polarity if self.finding else "present"


@dataclass(frozen=True)
class ReportAnswer:
    """What a report asked of a film, and the answers: one for each of `reading.asked`. `warnings` concern the whole report."""

    reading: Reading
    predictions: tuple[Prediction, ...]
    warnings: tuple[str, ...] = ()
    unknown_words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoded:
    """Films that every model of a segmenter has read: each further sentence costs one decode. `features[i]` belongs to bundle i, and
    `mirrored[i]` to the same films mirrored, where the segmenter answers with flips.
    """

    images: tuple[Image, ...]
    features: tuple[Any, ...]
    bundles: tuple[str, ...]
    mirrored: tuple[Any, ...] = ()


class Segmenter:
    """Keeps its models loaded. With several bundles their calibrated probabilities are averaged; the first one's decision rule cuts.

    A source is a path, the bytes of a file, an array (H, W) or (H, W, 3), or a PIL image. `laterality` says whose left a text means; left
    out, the format's own convention holds (DICOM, NIfTI: the patient's), else the bundle's, and a side word then warns
    `laterality_assumed`. A model that reads no text, or was trained as a text-free twin, answers from the film alone.

    With `flips` the calibrated probabilities are averaged with those of the mirrored film under swapped side words, mirrored back, so the
    answer to the mirrored film is exactly the mirrored answer. None: as the first bundle was fitted. A text that cannot be swapped is
    answered without, with the warning `not_mirrored`. InputError flips where the mirrored films of a bundle's training are not as true.
    """

    def __init__(self, bundles: Sequence[Bundle], *, flips: bool | None = None, device: str = "auto", limits: Limits = DEFAULT) -> None:
        self.limits = limits
        self.flips = bundles[0].config.decision.flips if flips is None else flips
        unsafe = [source.name for bundle in bundles for source in bundle.config.trained_on if source.flip_safe is False]
        if self.flips and unsafe:
            fix = "Answer without: --no-flips."
            raise InputError(f"trained on {unsafe[0]}, whose mirrored films are not as true", "--flips", fix, "flips")
        self._members = [Member(bundle, TorchEngine(bundle.model, device), is_twin(bundle)) for bundle in bundles]

    @classmethod
    def from_pretrained(
        cls,
        ref: str | os.PathLike[str],
        *,
        revision: str | None = None,
        engine: str = "auto",
        device: str = "auto",
        with_: Sequence[str | os.PathLike[str]] = (),
        flips: bool | None = None,
        limits: Limits = DEFAULT,
    ) -> Segmenter:
        """A bundle's folder, a shipped name, or hf:owner/name at `revision`; `with_` names further bundles.

        InputError: those of load_bundle, engine, device, flips.
        """
        if engine not in ENGINES:
            raise InputError(f"there is no engine {engine!r}", "--engine", f"This version has {', '.join(ENGINES)}.", "engine")
        return cls([load_bundle(ref, revision), *map(load_bundle, with_)], flips=flips, device=device, limits=limits)

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """The bundle, then those that are averaged with it."""
        return tuple(member.bundle for member in self._members)

    @property
    def laterality(self) -> Laterality:
        """The convention of the first bundle that has one."""
        stated: list[Laterality] = [bundle.config.text.laterality for bundle in self.bundles]
        return next((name for name in stated if name != "none"), "none")

    @property
    def sha256(self) -> str:
        """Hash of the first bundle."""
        return self._members[0].bundle.sha256

    @property
    def ensemble(self) -> tuple[str, ...]:
        """Hashes of the further bundles."""
        return tuple(member.bundle.sha256 for member in self._members[1:])

    @property
    def decision(self) -> Decision:
        """The first bundle's rule, which is applied to the average."""
        return self._members[0].bundle.decision

    @property
    def rule(self) -> DecisionConfig:
        """The same as answers record it."""
        return self.bundles[0].config.decision.model_copy(update={"flips": self.flips})

    @property
    def engine(self) -> str:
        """What computes, e.g. torch-cpu."""
        return self._members[0].engine.name

    # ---- films

    def read(self, source: Source) -> Image:
        """A film within the limits. InputError: those of read_image, image_from_array and image_from_pil."""
        if isinstance(source, Image):
            return source
        if isinstance(source, np.ndarray):
            return image_from_array(source)
        if isinstance(source, PIL.Image.Image):
            return image_from_pil(source, limits=self.limits)
        return read_image(source, self.limits)

    def encode_image(self, source: Source) -> Encoded:
        """The text-free part of one film: each further sentence costs one decode. InputError: those of `read`."""
        return self.encode_images([source])

    def encode_images(self, sources: Sequence[Source]) -> Encoded:
        """Films of any sizes, as one batch."""
        images = [self.read(source) for source in sources]
        mirrored = self._features([mirrored_film(image) for image in images]) if self.flips else ()
        return Encoded(tuple(images), self._features(images), (self.sha256, *self.ensemble), mirrored)

    def _features(self, images: Sequence[Image]) -> tuple[Any, ...]:
        """What each member makes of the films."""
        grids: dict[int, torch.Tensor] = {}
        for member in self._members:
            size = member.bundle.config.preprocess.size_px
            if size not in grids:
                grids[size] = torch.stack([prepare_image(image, size) for image in images])
        return tuple(member.engine.encode_image(grids[member.bundle.config.preprocess.size_px]) for member in self._members)

    # ---- sentences

    def ask(
        self, text: str, laterality: Laterality | None = None, implied: Laterality | None = None, finding: Finding | None = None
    ) -> Question:
        """The text as each bundle reads it. `implied` is the convention of the film's format.

        The text of a report's finding is no denial, and is asked with the side that the report's grammar gives it ("left-sided atelectasis
        and effusion").

        InputError: those of check_text, laterality (no such word), side_word (a side word that cannot be turned and would have to be).
        """
        check_text(text, "text", self.limits)
        if laterality not in (None, *get_args(Laterality)):
            legal = ", ".join(get_args(Laterality))
            raise InputError(f"there is no laterality {laterality!r}", "--laterality", f"Say one of {legal}.", "laterality")
        whose = laterality or implied or "none"
        # An answer always has a side that can be looked up on the film, also where nobody has said whose left the text means.
        named = next(name for name in (whose, self.laterality, "image") if name != "none")
        reading = [member for member in self._members if member.reads_text]
        if reading and finding is None and is_negated(text):
            return Question(text, (text,) * len(self._members), named, True, ("negated",))
        asked = f"{finding.side} {text}" if finding and finding.side in SIDES and not has_side(text) else text
        prompts = tuple(member.prompt(asked, named) for member in self._members)
        turned = [mirrored_text(prompt, member.reads_text) for member, prompt in zip(self._members, prompts, strict=True)]
        mirrored = tuple(text for text in turned if text is not None) if self.flips and None not in turned else ()
        warnings = ["laterality_assumed"] if reading and whose == "none" and has_side(asked) else []
        warnings += ["not_mirrored"] if self.flips and not mirrored else []
        unknown: list[str] = []
        for member, prompt in zip(self._members, prompts, strict=True):
            warnings += member.warnings(prompt)
            unknown += member.unknown(prompt)
        return Question(text, prompts, named, False, tuple(dict.fromkeys(warnings)), tuple(dict.fromkeys(unknown)), finding, mirrored)

    def read_report(self, report: str) -> tuple[Reading, tuple[str, ...], tuple[str, ...]]:
        """The report's findings; warnings that concern all of it, and the words behind out_of_vocabulary.

        `negated`: something is denied and nothing asked. `out_of_vocabulary`: the report is in another language, whatever the bundles
        know, or it names no finding that is known, and many of its words no training showed; at most 20 words. InputError: those of
        check_text.
        """
        reading = read_report(check_text(report, "report", self.limits))
        if reading.findings:
            return reading, () if reading.asked else ("negated",), ()
        unseen = dict.fromkeys(word for member in self._members for word in member.unknown(report))
        unknown = reading.foreign or tuple(unseen)[:NAMED]
        return reading, ("out_of_vocabulary",) if unknown else (), unknown

    # ---- answers

    def segment(self, source: Source | Encoded, text: str, *, id: str = "", laterality: Laterality | None = None) -> Prediction:
        """One film, one sentence; the answer is on the film's own grid. InputError: those of `read` and `ask`."""
        return self.segment_many(source, [text], id=id, laterality=laterality)[0]

    def segment_many(
        self, source: Source | Encoded, texts: Sequence[str], *, id: str = "", laterality: Laterality | None = None
    ) -> list[Prediction]:
        """One film, read once, many sentences: one answer each, in their order. InputError: those of `read` and `ask`."""
        started = time.perf_counter()
        encoded = source if isinstance(source, Encoded) else self.encode_image(source)
        name = id or _name(source, encoded.images[0])
        answers = []
        for text in texts:
            answers += self.answer(encoded, [self.ask(text, laterality, encoded.images[0].laterality)], [name], started)
            started = time.perf_counter()
        return answers

    def segment_report(self, source: Source | Encoded, report: str, *, id: str = "", laterality: Laterality | None = None) -> ReportAnswer:
        """One film, read once, and a mask for each finding that the report affirms or doubts; ids end in -f1, -f2.

        InputError: those of read, check_text and ask.
        """
        started = time.perf_counter()
        reading, warnings, unknown = self.read_report(report)
        encoded = source if isinstance(source, Encoded) else self.encode_image(source)
        name = id or _name(source, encoded.images[0])
        answers: list[Prediction] = []
        for number, finding in enumerate(reading.asked, 1):
            question = self.ask(finding.text, laterality, encoded.images[0].laterality, finding)
            answers += self.answer(encoded, [question], [finding_id(name, number)], started)
            started = time.perf_counter()
        return ReportAnswer(reading, tuple(answers), warnings, unknown)

    def segment_batch(
        self, sources: Sequence[Source], texts: Sequence[str], *, ids: Sequence[str] | None = None, laterality: Laterality | None = None
    ) -> list[Prediction]:
        """One sentence a film, computed in batches of 8; the answers are those of `segment`.

        ValueError where films, texts and ids differ in number; InputError: those of `read` and `ask`.
        """
        if not len(sources) == len(texts) == len(sources if ids is None else ids):
            raise ValueError(f"{len(sources)} films, {len(texts)} texts, {len(sources if ids is None else ids)} ids")
        answers = []
        for first in range(0, len(sources), BATCH):
            started, rows = time.perf_counter(), slice(first, first + BATCH)
            images = [self.read(source) for source in sources[rows]]
            questions = [self.ask(text, laterality, image.laterality) for text, image in zip(texts[rows], images, strict=True)]
            names = [_name(*pair) for pair in zip(sources[rows], images, strict=True)] if ids is None else ids[rows]
            answers += self.answer(self.encode_images(images), questions, names, started)
        return answers

    def answer(
        self,
        encoded: Encoded,
        questions: Sequence[Question],
        ids: Sequence[str],
        started: float | None = None,
        *,
        examine: bool = False,
    ) -> list[Prediction]:
        """One question a film. The time since `started` is shared out among the answers.

        `examine` holds the averaged answers apart: where there are several, the predictions have `spread_HW` and `disagreement`, and all
        have `raw_HW`. InputError not_finite where a bundle's weights are too large to compute with.
        """
        started = time.perf_counter() if started is None else started
        questions = [_of_film(question, image) for question, image in zip(questions, encoded.images, strict=True)]
        maps, decision = self._maps(encoded, questions, examine), self.decision
        masks = [decide(one.prob_HW, decision) & (not question.denied) for one, question in zip(maps, questions, strict=True)]
        seconds = (time.perf_counter() - started) / len(questions)
        return [
            Prediction(
                id=id,
                mask_HW=mask,
                probability_HW=one.prob_HW,
                geometry=image.geometry,
                text=question.text,
                presence=one.presence,
                side=side_of(image.geometry.displayed(mask), question.laterality) if image.geometry.has_sides else None,
                laterality=question.laterality,
                decision=self.rule.model_dump(),
                engine=self.engine,
                bundle_sha256=self.sha256,
                warnings=tuple(dict.fromkeys((*image.warnings, *question.warnings))),
                time_s=seconds,
                polarity=question.polarity,
                finding=question.finding,
                unknown_words=question.unknown_words,
                uncertainty=None if question.denied else 1.0 - expected_dice(one.prob_HW, mask),
                disagreement=disagreement([decide(view, decision) for view in one.views], mask) if len(one.views) > 1 else None,
                spread_HW=spread(one.views) if len(one.views) > 1 else None,
                raw_HW=one.raw_HW,
            )
            for id, image, question, mask, one in zip(ids, encoded.images, questions, masks, maps, strict=True)
        ]

    def answer_each(
        self,
        encoded: Encoded,
        questions: Sequence[Question],
        ids: Sequence[str],
        started: float | None = None,
        *,
        examine: bool = False,
    ) -> list[Prediction | InputError]:
        """As `answer`, and where it cannot be given each film is asked by itself: those that have no finite answer have the error."""
        try:
            return [*self.answer(encoded, questions, ids, started, examine=examine)]
        except InputError as error:
            if len(questions) == 1:
                return [error]
        rows = zip(encoded.images, questions, ids, strict=True)
        return [self.answer_each(self.encode_images([film]), [question], [id], examine=examine)[0] for film, question, id in rows]

    def _maps(self, encoded: Encoded, questions: Sequence[Question], examine: bool) -> list[Average]:
        """Per film what all members say, on its own pixels, with their views where they are to be examined."""
        if encoded.bundles != (self.sha256, *self.ensemble):
            raise ValueError("these films were encoded by another segmenter")
        shapes = [image.geometry.displayed_shape for image in encoded.images]
        maps = [Average(np.zeros(shape, np.float32), len(self._members), examine) for shape in shapes]
        for place, (member, features) in enumerate(zip(self._members, encoded.features, strict=True)):
            views = [[view] for view in member.answer(features, [question.prompts[place] for question in questions], shapes, examine)]
            if any(question.mirrored for question in questions):
                asked = [(question.mirrored or question.prompts)[place] for question in questions]
                turned = member.answer(encoded.mirrored[place], asked, shapes, examine)
                for own, view, question in zip(views, turned, questions, strict=True):
                    own += [view.mirrored()] if question.mirrored else []
            for average, own in zip(maps, views, strict=True):
                average.add(own)
        for image, average in zip(encoded.images, maps, strict=True):
            average.prob_HW = average.prob_HW.clip(0, 1)
            average.store(image.geometry)
        # A denied text has its answer from the words alone, so its map is empty like its mask.
        return [
            Average(np.zeros_like(one.prob_HW), 0, raw_HW=np.zeros_like(one.prob_HW) if examine else None) if question.denied else one
            for one, question in zip(maps, questions, strict=True)
        ]


def side_of(mask_HW: NDArray[np.bool_], laterality: Laterality) -> Side | None:
    """The half of the displayed film that holds the mask, in the convention of `laterality`: the left of the image is the patient's right.

    A half counts from a tenth of the mask's area on, the middle column of an odd width half to each. None for an empty mask.
    """
    columns = mask_HW.sum(axis=0, dtype=np.int64)
    half = len(columns) // 2
    left, right = int(columns[:half].sum()), int(columns[len(columns) - half :].sum())
    middle = (int(columns.sum()) - left - right) / 2
    touched = SIDE_SHARE * columns.sum()
    if not columns.any():
        return None
    if left + middle >= touched and right + middle >= touched:
        return "bilateral"
    return "left" if (left > right) == (laterality != "patient") else "right"


def _of_film(question: Question, image: Image) -> Question:
    """The question as this film allows it: the mirror of a view without left and right is another anatomy."""
    if not question.mirrored or image.geometry.has_sides:
        return question
    return replace(question, mirrored=(), warnings=(*question.warnings, "not_mirrored"))


def _name(source: Source | Encoded, image: Image) -> str:
    """The format's own id; else the stem of a path."""
    return image.id or (safe_id(Path(source).stem) if isinstance(source, str | Path) else "")
