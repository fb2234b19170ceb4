"""One bundle of a segmenter: the sentence as it reads it, its views of a film, and what several views say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import TRAINING, Bundle
from .decision import calibrate
from .engines import TorchEngine, native_logits
from .errors import InputError
from .knowledge.bank import retrieve
from .schemas.base import read_json
from .schemas.training import TrainingFile
from .text import CONSTANT, FOREIGN, can_swap, normalise, swap_sides, unknown_sides, words
from .types import Geometry, Laterality

UNKNOWN_WORDS = 0.3  # share of a text's distinct words that training never showed, above which the answer warns


@dataclass(frozen=True)
class View:
    """What one bundle says of a film, or of its mirror: calibrated probabilities (H, W), those at temperature 1 where wanted, presence."""

    prob_HW: NDArray[np.float32]
    raw_HW: NDArray[np.float32] | None = None
    presence: float | None = None

    def mirrored(self) -> View:
        """The same with left and right exchanged."""
        return View(self.prob_HW[:, ::-1], None if self.raw_HW is None else self.raw_HW[:, ::-1], self.presence)


@dataclass
class Average:
    """The mean over bundles of the mean over a bundle's views, so film and mirror come in no order. `views` only where they are kept."""

    prob_HW: NDArray[np.float32]
    members: int
    keep: bool = False
    raw_HW: NDArray[np.float32] | None = None
    presences: list[float] = field(default_factory=list)
    views: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, views: Sequence[View]) -> None:
        """The views of one bundle: one, or film and mirror."""
        share = np.float32(self.members)
        self.prob_HW += _mean([view.prob_HW for view in views]) / share
        told = [view.presence for view in views if view.presence is not None]
        self.presences += [sum(told) / len(told)] if told else []
        if self.keep:
            raw = _mean([view.raw_HW for view in views if view.raw_HW is not None]) / share
            self.raw_HW = raw if self.raw_HW is None else self.raw_HW + raw
            self.views += [view.prob_HW for view in views]

    def store(self, geometry: Geometry) -> None:
        """From the film as it is displayed to its pixels as they are stored."""
        self.prob_HW, *self.views = (np.ascontiguousarray(geometry.stored(map_HW)) for map_HW in (self.prob_HW, *self.views))
        self.raw_HW = None if self.raw_HW is None else np.ascontiguousarray(geometry.stored(self.raw_HW))

    @property
    def presence(self) -> float | None:
        """The mean over the bundles that have the head; None where none has."""
        return sum(self.presences) / len(self.presences) if self.presences else None


def _mean(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return maps[0] if len(maps) == 1 else np.asarray((maps[0] + maps[1]) / 2, dtype=np.float32)


@dataclass(frozen=True)
class Member:
    """One bundle of a segmenter. A twin was trained with one constant sentence and gets no other."""

    bundle: Bundle
    engine: TorchEngine
    twin: bool

    @property
    def reads_text(self) -> bool:
        """Whether a sentence moves its answer."""
        return bool(self.engine.model.reads_text) and not self.twin

    def answer(self, features: Any, prompts: Sequence[str], shapes: Sequence[tuple[int, int]], raw: bool = False) -> list[View]:
        """A view of each film on its grid of `shapes` (H, W); with `raw` also the probabilities at temperature 1.

        InputError not_finite: finite weights may be so large that what they compute is not.
        """
        output = self.engine.decode(features, self.engine.encode_text(prompts))
        temperature = self.bundle.decision.temperature
        presence: list[float | None] = [None] * len(shapes)
        if output.presence_B is not None and self.bundle.config.presence:
            presence = [float(calibrate(logit)) for logit in output.presence_B.tolist()]
        maps = native_logits(output.logits_B1HW, shapes)
        if not (all(np.isfinite(x).all() for x in maps) and np.isfinite([p for p in presence if p is not None]).all()):
            fix = "Its weights are too large, or the training diverged; use another bundle."
            raise InputError("the bundle's answer to this film is not finite", self.bundle.path, fix, "not_finite")
        return [View(calibrate(x, temperature), calibrate(x) if raw else None, p) for x, p in zip(maps, presence, strict=True)]

    def prompt(self, text: str, whose: Laterality) -> str:
        """The text in the bundle's own convention. InputError side_word where a side word stands in the way."""
        own = self.bundle.config.text.laterality
        if not self.reads_text:
            return CONSTANT if self.twin else ""
        if "none" in (whose, own) or whose == own:
            return text
        if not can_swap(text):
            what = f"the side word {unknown_sides(text)[0]!r} cannot be turned from the side of the {whose} to that of the {own}"
            fix = f'Write "left" or "right", or word the text for the {own} and say --laterality {own}.'
            raise InputError(what, "text", fix, "side_word")
        return swap_sides(text)

    def warnings(self, prompt: str) -> list[str]:
        """What of the prompt has no effect on this model."""
        if not self.reads_text:
            return []
        if not normalise(prompt):
            return ["empty_text"]
        bank = self.bundle.bank
        cut = bool(self.engine.model.truncates(prompt))  # type: ignore[operator]
        return (
            ["out_of_vocabulary"] * bool(self.unknown(prompt))
            + ["text_truncated"] * cut
            + ["no_knowledge"] * (bank is not None and not retrieve(prompt, bank))
        )

    def unknown(self, prompt: str) -> list[str]:
        """The words that training never showed, in their order, if they are more than a share of the prompt's distinct words, or if one of
        them is a denial or the like of another language."""
        distinct = list(dict.fromkeys(words(prompt))) if self.reads_text else []
        unknown = [word for word in distinct if word not in self.bundle.words]
        return unknown if len(unknown) > UNKNOWN_WORDS * len(distinct) or not FOREIGN.isdisjoint(unknown) else []


def is_twin(bundle: Bundle) -> bool:
    """Whether the bundle was trained with the constant sentence, as its training.json records."""
    data = read_json(bundle.path / TRAINING, TrainingFile).config.get("data")
    return isinstance(data, dict) and data.get("text") == "constant"
