"""Training: one run is one folder, and a resumed run ends with the same bytes as one that was never interrupted.

Everything random is a function of (seed, step, index), so a checkpoint holds weights, moments and the weight average and no random state.
Accelerate brings device and precision. What is selected or fitted uses `dev`, 10 % of the training films that are never trained on.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from . import checkpoint, optim
from .bundle import TRAINING, Bundle, load_bundle, reads_text, save_bundle
from .config import RunConfig, dump_config
from .data.cache import FilmCache, open_cache
from .data.loader import Batch, Steps, batches
from .data.negatives import check_negatives
from .dev import averaged, fit_decision, score_dev
from .engines import Precision, TorchEngine, autocast, pick_device
from .errors import InputError
from .knowledge.bank import Bank
from .limits import atomic_write
from .losses import lovasz_hinge_loss
from .models import bank_of, build, make_tokenizer, resolve
from .placing import learn_places, sentences_only
from .run_config import CONFIG, ENV, Manifests, changed, check_free, check_parent, check_same, checked, settled, stored_config
from .run_log import RunLog
from .runs import Prepared, alone, contents, environment, plan, prepare, text_steps, without_paths
from .schemas.base import read_json, write_json
from .schemas.training import MAX_CURVE_POINTS, TrainingFile
from .teacher import read_teacher, sources_sha256
from .twins import parent_twin

LOG, CHECKPOINTS, BUNDLE = "log.jsonl", "checkpoints", "bundle"
DEV_READINGS = 12  # times that dev is scored during a run
SAFETY = 1.25  # `train.minutes` fixes the number of images from the measured rate; only a run this much slower is cut

Progress = Callable[[Mapping[str, Any]], None]


@dataclass
class State:
    """What a run has reached."""

    step: int = 0
    seconds: float = 0.0
    placing_s: float = 0.0  # before the first film, which `seconds` leaves out
    best: float = -1.0
    best_size: int = 0
    truncated: bool = False


def train(
    config: RunConfig,
    *,
    manifest: Manifests = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    like: str | Path | None = None,
) -> Path:
    """Train one model and write its run folder (default `runs/NAME-SEED`); returns the folder, whose `bundle/` is the result.

    With `resume` a finished run is returned as it is, and one without a complete checkpoint starts at step 0. `like` is the folder of a run
    with another seed: what that one measured, its precision and how many images fit into its minutes, a new run takes over.
    InputError: exists, in_use, config (a resume with other settings or films), minutes (fewer than placing the sentences takes), diverged
    (with the step and the ids of the batch), unwritable, and those of the data.
    """
    config = checked(config, manifest)
    folder = Path(out) if out is not None else Path("runs") / f"{config.name}-{config.seed}"
    if resume and (folder / CONFIG).exists():
        config = stored_config(config, folder, manifest)
        if (folder / BUNDLE / "config.json").exists():
            return folder
    else:
        check_free(folder)
        config = config if like is None else settled(config, Path(like))
    prepared = prepare(config)
    config = resolve(config, prepared.absent)
    run = Run(config, prepared, folder, pick_device(device), progress or (lambda _: None), measure=like is None)
    with alone(folder):
        if not resume:
            check_free(folder)  # again: a run may have begun and ended there in between
        run.start(resume)
        run.fit()
        return run.finish()


def train_seeds(config: RunConfig, seeds: Sequence[int], *, out: str | Path | None = None, **options: Any) -> list[Path]:
    """One run for each seed, in `NAME-SEED` under `out` (default `runs/`); options as for `train`.

    What is measured, precision and images, is measured by the run that begins first, also where it began before a resume: each seed by its
    own speed would be another method. InputError before the first of them: seeds (none, or one twice), exists.
    """
    parent = Path(out) if out is not None else Path("runs")
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError("no seed was given, or one stands twice", "--seeds", "Give each once, as in 0,1,2.", "seeds")
    places = [parent / f"{config.name}-{seed}" for seed in seeds]
    for place in places if not options.get("resume") else ():
        check_free(place)
    first = next((place for place in places if (place / CONFIG).exists()), None)
    for seed, place in zip(seeds, places, strict=True):
        train(config.model_copy(update={"seed": seed}), out=place, like=first, **options)
        first = first or place
    return places


def dry_run(config: RunConfig, *, manifest: Manifests = None) -> dict[str, Any]:
    """Reads config and manifest as `train` does, and says what it would do (runs.plan)."""
    config = checked(config, manifest)
    prepared = prepare(config)
    return plan(resolve(config, prepared.absent), prepared)


class Run:
    """One training run. `start`, `fit`, `finish`, in this order."""

    def __init__(
        self, config: RunConfig, prepared: Prepared, folder: Path, device: torch.device, progress: Progress, measure: bool = True
    ) -> None:
        self.config, self.prepared, self.folder, self.device, self.progress = config, prepared, folder, device, progress
        self.measure = measure  # how many images fit into `train.minutes`
        self.parent: Bundle | None = None
        self.state = State()
        self.figures: dict[str, list[float]] = {}  # since the last line of the log

    # ---------------------------------------------------------------- start

    def start(self, resume: bool) -> None:
        """Films, words, model and optimiser; on a resume the newest complete checkpoint."""
        from accelerate import Accelerator

        config, prepared = self.config, self.prepared
        side = max(size for _, size in config.data.sizes())
        self.films = open_cache([*prepared.train, *prepared.dev], side, lambda n, of: self.progress({"reading": n, "of": of}))
        check_negatives(prepared.train, self.films.masks_NHW, config.data.negatives)
        self.learnt, self.teacher = self._targets()
        shown = contents(prepared, self.films.masks_NHW)
        env = environment(config, prepared, self.device, self.teacher, sources_sha256(config, prepared.train), shown)
        check_same(config, self.folder, env)
        self.tokenizer, self.bank = self._words()
        torch.manual_seed(config.seed)
        base = self.parent.config.base if self.parent is not None else None
        self.model = build(config.model, self.tokenizer, self.bank, base)
        self.base = self.model.base
        if self.parent is not None:
            state = self.parent.model.state_dict()
            grown = {key: value for key, value in self.model.state_dict().items() if key.startswith("presence.") and key not in state}
            self.model.load_state_dict(state | grown, strict=True)
        self.model.begin_training([prepared.text_of(sample) for sample in prepared.train])
        self.model.to(self.device)
        if config.train.precision == "auto":
            config = changed(config, "train", precision="bf16" if optim.bf16_gains(self.device) else "fp32")
        self.precision: Precision = "bf16" if config.train.precision == "bf16" else "fp32"
        self.accelerator = Accelerator(cpu=self.device.type == "cpu")  # its precision is one for the whole process; ours is the run's
        self.optimiser = optim.adamw(self.model, config.train)
        if config.train.minutes is not None and self.measure and not (self.folder / CONFIG).exists():
            config = changed(config, "train", images=self._images_in(config.train.minutes))
        self.config = config
        atomic_write(self.folder / CONFIG, dump_config(config))
        write_json(self.folder / ENV, env)
        found = checkpoint.load(self.folder / CHECKPOINTS) if resume else None
        placed = self._place_sentences() if found is None else None
        self.average = optim.Average(self.model, config.train.ema, config.steps())
        if found is not None:
            self._restore(*found)
        self.log = RunLog(self.folder / LOG, self.state.step)
        if placed is not None and not self.log.rows:
            self.log.add(0, images=0, placing=placed)

    def _targets(self) -> tuple[FilmCache, list[str]]:
        """The films that are trained on, their masks softened by a teacher where there is one, and the hashes of its bundles."""
        data, train = self.config.data, self.prepared.train
        films = FilmCache(self.films.images_NCHW[: len(train)], self.films.masks_NHW[: len(train)])
        if data.teacher is None:
            return films, []
        targets, bundles = read_teacher(data.teacher, train, films.masks_NHW, data.teacher_weight, self.prepared.constant)
        return replace(films, targets_NHW=targets), bundles

    def _words(self) -> tuple[str | None, Bank | None]:
        """Tokenizer and knowledge: those of the parent bundle, else the text tower's own tokenizer or one of the sentences and the bank."""
        if self.config.train.init:
            self.parent = load_bundle(self.config.train.init, merged=False)
            check_parent(self.parent, self.config, self.prepared)
            return self.parent.tokenizer_json, self.parent.bank
        bank = bank_of(self.config.model)
        bank = bank and bank.facing(self.prepared.laterality)
        sentences = [sample.text for sample in self.prepared.train]
        return make_tokenizer(self.config.model, [*sentences, *(bank.texts() if bank else [])]), bank

    def _words_sha256(self) -> str:
        """Hash of tokenizer and knowledge: they are made anew on a resume, and with others the weights would read other words."""
        return hashlib.sha256(f"{self.tokenizer}\0{self.bank.sha256 if self.bank else None}".encode()).hexdigest()

    def _place_sentences(self) -> float | None:
        """Loss of a text encoder that has learnt where sentences place what they name; None where it has nothing to learn."""
        steps = text_steps(self.config, self.prepared)
        if not steps:
            return None
        began = time.monotonic()
        stream = self._micro_batches(sentences_only(self.config), 0)
        loss = learn_places(self.model, stream, steps, self.config.train.clip, lambda step: self.progress({"placing": step, "of": steps}))
        self.state.placing_s = time.monotonic() - began
        return loss

    def _images_in(self, minutes: float) -> int:
        """How many images this machine trains on in so many minutes, its sentences placed before: each size is measured and weighted by its
        share. InputError minutes where the sentences alone take as long.
        """
        data, batch = self.config.data, self.config.train.batch
        seconds, before = 0.0, 0.0
        kept = {name: value.clone() for name, value in self.model.state_dict().items()}
        placing, left = self._placing_takes(), 60 * minutes * 0.9  # a tenth is for dev, checkpoints and the decision
        if placing >= left:
            of_them = f"{round(placing / 60, 2):g} of the {minutes:g} minutes"
            what = f"placing the sentences takes about {of_them}, which leaves too little for the films"
            raise InputError(what, "train.minutes", "Give more minutes, or fewer train.text_steps.", "minutes")
        for share, size in data.sizes():
            trial = changed(self.config, "data", size_px=size)
            stream = self._micro_batches(changed(trial, "train", images=batch * 40), 0)
            seconds += (share - before) * optim.seconds_per_step(lambda s=stream: self._step([next(s)], 0.0), self.device) / batch  # type: ignore[misc]
            before = share
        self.model.load_state_dict(kept)
        self.optimiser = optim.adamw(self.model, self.config.train)
        return max(batch, int((left - placing) / seconds))

    def _placing_takes(self) -> float:
        """Seconds that `_place_sentences` will take, by the time of one step."""
        steps = text_steps(self.config, self.prepared)
        if not steps:
            return 0.0
        stream = self._micro_batches(sentences_only(changed(self.config, "train", text_steps=40)), 0)
        with torch.random.fork_rng(devices=[]):  # a resume does not measure again, and what it draws next must be the same
            one = optim.seconds_per_step(lambda: learn_places(self.model, stream, 1, self.config.train.clip, lambda _: None), self.device)
        return steps * one

    def _restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        if meta.get("towers", {}) != self._towers():
            fix = "Put back the towers that the run began with (their revision or folder), or start a new run."
            raise InputError("a pretrained tower is not the one that the run began with", self.folder, fix, "sha256")
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimiser": {}}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        if meta.get("words") != self._words_sha256():
            fix = "Give the run the sentences and the bank that it began with, or start another with -o."
            raise InputError("the sentences or the knowledge bank have changed since the run began", self.folder, fix, "config")
        self.model.load_state_dict(parts["model"], strict=True)
        self.average.state = {name: value.to(self.device) for name, value in parts["ema"].items()}
        optim.load_optimiser_state(self.optimiser, self.model, parts["optimiser"])
        self.state = State(**{key: value for key, value in meta.items() if key not in ("words", "towers")})

    # ---------------------------------------------------------------- fit

    def fit(self) -> None:
        """The loop over optimiser steps."""
        config, state = self.config, self.state
        steps, accumulate = config.steps(), config.train.accumulate
        read_at = {math.ceil(steps * i / DEV_READINGS) for i in range(1, DEV_READINGS + 1)}
        log_every = max(1, steps // MAX_CURVE_POINTS)
        per_step = accumulate * config.train.batch
        stream = self._micro_batches(config, state.step * accumulate)
        clock = saved = time.monotonic()
        before, since, seen_since = state.seconds, clock, 0
        sums: dict[str, list[float]] = {}  # since the last line of the log, or since a resume
        self.figures = {}
        while state.step < steps and not state.truncated:
            group = list(islice(stream, accumulate))
            terms, norm = self._step(group, optim.learning_rate(state.step, steps, config.train))
            state.step += 1
            began = config.size_began((state.step - 1) * per_step) // per_step
            self.average.update(self.model, state.step - began)
            seen_since += sum(len(batch.ids) for batch in group)
            for name, value in terms.items():
                sums.setdefault(name, []).append(value)
            now = time.monotonic()
            state.seconds = before + now - clock
            images = min(state.step * accumulate * config.train.batch, config.train.images)
            rate = seen_since / max(1e-9, now - since)
            left = (config.train.images - images) / max(1e-9, rate)
            self.progress({"images": images, "of": config.train.images, "images_per_s": rate, "left_s": left, "loss": terms["total"]})
            if state.step % log_every == 0:
                figures = {name: fmean(values) for name, values in self.figures.items()}
                rates = {"lr": optim.learning_rate(state.step - 1, steps, config.train), "norm": norm, "images_per_s": rate}
                self.log.add(state.step, images=images, **rates, **{name: fmean(values) for name, values in sums.items()}, **figures)
                for alarm in self.model.alarms(figures):
                    if all(row.get("alarm") != alarm for row in self.log.rows):
                        self.progress({"remark": alarm})
                    self.log.add(state.step, images=images, alarm=alarm)
                self.figures = {}
                sums, since, seen_since = {}, now, 0
            if config.train.minutes is not None and state.placing_s + state.seconds > SAFETY * 60 * config.train.minutes:
                state.truncated = True
            if state.step in read_at or state.truncated:
                self._read_dev(images)
                since, seen_since = time.monotonic(), 0
            if state.step == steps or state.truncated or now - saved > 60 * config.train.checkpoint_minutes:
                state.seconds = before + time.monotonic() - clock
                self._save()
                saved = time.monotonic()

    def _micro_batches(self, config: RunConfig, start: int) -> Iterator[Batch]:
        return batches(Steps(self.prepared.train, self.learnt, config), start, self.device, config.train.workers)

    def _step(self, group: Sequence[Batch], rate: float) -> tuple[dict[str, float], float]:
        """One optimiser step over `group`; the loss terms and the gradient's norm before clipping."""
        self.model.train()
        self.model.progress = self.state.step / self.config.steps()
        images = sum(len(batch.ids) for batch in group)
        terms: dict[str, float] = {"total": 0.0}
        for batch in group:
            target_B1HW, valid_B1HW = batch.mask_B1HW if batch.target_B1HW is None else batch.target_B1HW, batch.valid_BHW[:, None]
            with autocast(self.device, self.precision):
                output = self.model(batch.image_B3HW, batch.texts, target_B1HW, valid_B1HW)
            losses = dict(output.losses)
            if self.model.progress >= 1 - self.config.train.lovasz:
                losses["lovasz"] = lovasz_hinge_loss(output.logits_B1HW, batch.mask_B1HW, valid_B1HW)
            share = len(batch.ids) / images
            loss = share * torch.stack(list(losses.values())).sum()
            self.accelerator.backward(loss)
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + share * float(value.detach())
            for name, value in output.figures.items():
                self.figures.setdefault(name, []).append(float(value))
            terms["total"] += float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip))
        if not (math.isfinite(norm) and math.isfinite(terms["total"])):
            self._diverged(group)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return terms, norm

    def _diverged(self, group: Sequence[Batch]) -> None:
        path = checkpoint.path_of(self.folder / CHECKPOINTS, checkpoint.LAST)
        ids = ", ".join(id for batch in group for id in batch.ids)
        kept = f"The last good checkpoint is {path}." if path.exists() else "No checkpoint had been written."
        raise InputError(
            f"training diverged at step {self.state.step}: loss or gradient is not finite. Films of this batch: {ids}",
            self.folder,
            f"{kept} Start anew with a lower train.lr, or look at these films with `reportseg data verify`.",
            "diverged",
        )

    def _read_dev(self, images: int) -> None:
        """Score the weight average on dev at 0.5, on the training grid; keep it where it is the best so far."""
        if not self.prepared.dev:
            return
        first, prepared = len(self.prepared.train), self.prepared
        films = FilmCache(self.films.images_NCHW[first:], self.films.masks_NHW[first:])
        with averaged(self.model, self.average.state):
            engine = TorchEngine(self.model, str(self.device), self.precision)
            size = self.config.size_at(images - 1)
            scores = score_dev(engine, prepared.dev, films, size, prepared.text_of)
        self.log.add(self.state.step, images=images, **{f"dev_{name}": value for name, value in scores.items()})
        reached = scores["dice_mean"] + scores["dice_pooled"]
        if reached >= self.state.best or size != self.state.best_size:  # scores at another size say nothing about this one
            self.state.best, self.state.best_size = reached, size
            tensors = {f"ema/{name}": value for name, value in self.average.state.items()}
            checkpoint.save(self.folder / CHECKPOINTS, tensors, {"step": self.state.step}, checkpoint.BEST)

    def _save(self) -> None:
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"ema/{name}": value for name, value in self.average.state.items()}
        tensors |= {f"optimiser/{name}": value for name, value in optim.optimiser_state(self.optimiser, self.model).items()}
        meta = {**asdict(self.state), "words": self._words_sha256(), "towers": self._towers()}
        checkpoint.save(self.folder / CHECKPOINTS, tensors, meta)

    def _towers(self) -> dict[str, str]:
        """Hashes of the pretrained towers by part: a checkpoint does not hold what is frozen."""
        return {part: tower["sha256"] for part, tower in self.base.model_dump().items() if tower["sha256"]}

    # ---------------------------------------------------------------- finish

    def finish(self) -> Path:
        """The best weight average, as fp16 reads back, gets its decision rule from dev and becomes the bundle."""
        best = checkpoint.load(self.folder / CHECKPOINTS, checkpoint.BEST)
        weights = self.average.state if best is None else {k.removeprefix("ema/"): v for k, v in best[0].items()}
        stored = {name: value.half().to(value.dtype) if value.is_floating_point() else value for name, value in weights.items()}
        self.model.load_state_dict(stored, strict=True)
        self.model.end_training()
        prepared, config = self.prepared, self.config
        images = min(self.state.step * config.train.batch * config.train.accumulate, config.train.images)
        side = config.size_at(images - 1)  # of a run that was cut, the size that it had reached
        engine = TorchEngine(self.model, str(self.device))
        flips = config.eval.flips
        decision, scores = fit_decision(
            engine, prepared.dev, side, prepared.text_of, lambda n, of: self.progress({"deciding": n, "of": of}), flips
        )
        fields = {
            "preprocess": {"size_px": side, "windows": prepared.windows},
            "base": self.base.model_dump(),
            "text": {"laterality": prepared.laterality},
            "decision": {"rule": decision.rule, "threshold": decision.threshold, "temperature": decision.temperature, "flips": flips},
            "presence": bool(config.model.get("presence")),
            "trained_on": prepared.trained_on,
            "parent": self.parent.sha256 if self.parent else None,
            "licence": prepared.licence,
        }
        training = TrainingFile(
            images=images,
            steps=self.state.step,
            seconds=round(self.state.seconds, 1),
            seed=config.seed,
            device=self.device.type,
            precision=self.precision,
            truncated=self.state.truncated,
            teacher=self.teacher,
            parent_twin=self._parent_twin(),
            config=without_paths(config),
            dev=scores,
            curves=self.log.curves(),
        )
        save_bundle(self.folder / BUNDLE, self.model, config.model, self.tokenizer, self.bank, fields, training, prepared.words)
        return self.folder

    def _parent_twin(self) -> str | None:
        """What tells that a twin of this run went on from the parent's twin."""
        if self.parent is None:
            return None
        known = read_json(self.parent.path / TRAINING, TrainingFile)
        return parent_twin(known, self.parent.config, reads=reads_text(self.parent.model, known), constant=self.prepared.constant)
