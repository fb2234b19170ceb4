"""What `study cost` measures, each in a process of its own: `python -m reportseg.studies.cost_child TASK` reads a JSON job on stdin and
prints its figures as JSON. Memory is that of one model alone; times are taken in turns with the U-Net, so that a busy moment of the machine
falls on both alike.

Films and weights are made up: what an answer costs depends on the sizes only. A model of a configuration is laid out as it would be
trained, with its frozen and adapted towers, and no weights are fetched.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..bundle import load_bundle
from ..config import TrainSection
from ..engines import autocast
from ..models import MODELS, bank_of, count_parameters, model_config
from ..models.encoders import SentenceTokenizer, train_tokenizer
from ..models.lora import Adapted, merge
from ..models.output import SegmentationModel
from ..models.text_towers import PretrainedText
from ..optim import adamw
from ..text import CONSTANT, swap_sides

UNET = {"name": "unet", "width": 64}
SENTENCES = [
    *(
        f"Unilateral pulmonary infection, one infected area, {level} {side} lung."
        for side in ("left", "right")
        for level in ("upper", "lower")
    ),
    "Bilateral pulmonary infection, two infected areas, upper left lung and middle lower right lung.",
]
DISCARDED = 2  # first turns, in which libraries choose their kernels
STEPS = 2  # training steps behind the peak of memory: the optimiser's state is there from the first on


def lay_out(job: Mapping[str, Any], *, merged: bool = False) -> SegmentationModel:
    """The model of a job: a bundle's, or that of a `model` section with random weights and a tokenizer of `SENTENCES`. `merged`: as it
    answers, with low-rank changes in their weights; else as it is trained.
    """
    torch.manual_seed(0)
    if job.get("bundle"):
        model: Any = load_bundle(job["bundle"], merged=merged).model
        return model.to(job["device"])  # type: ignore[no-any-return]
    section = job["section"]
    bank = bank_of(section)
    model = MODELS[section["name"]][1](model_config(section), None, bank)
    words = train_tokenizer([*SENTENCES, *(bank.texts() if bank else [])])
    for part in list(model.modules()):
        for name, value in list(vars(part).items()):
            if isinstance(value, SentenceTokenizer):  # that of a model that is only laid out knows no word, and would read letters
                setattr(part, name, SentenceTokenizer(words, value.max_tokens))
    if merged:
        merge(model)
    return model.to(job["device"])  # type: ignore[no-any-return]


def films(batch: int, job: Mapping[str, Any]) -> tuple[torch.Tensor, list[str]]:
    """(B, 3, size, size) in [0, 1] and a sentence for each, that of all twins where none is read."""
    image = torch.rand(batch, 3, job["size_px"], job["size_px"], device=job["device"])
    return image, [SENTENCES[i % len(SENTENCES)] if job["reads"] else CONSTANT for i in range(batch)]


def asking(model: Any, batch: int, job: Mapping[str, Any]) -> Callable[[], None]:
    """One answer to a batch, in fp32, as the program gives it to sentences that it was not asked before: with flips the mirrored films are
    asked too, under swapped side words.
    """
    image, texts = films(batch, job)
    views = [(image, texts)]
    if job["flips"]:
        views.append((image.flip(-1), [swap_sides(text) for text in texts]))
    model.eval()
    known = constants(model, job)

    def ask() -> None:
        for tower, constant in known.items():
            tower.known = dict(constant)
        features = [model.encode_image(image) for image, _ in views]
        for encoded, (_, texts) in zip(features, views, strict=True):
            model.decode(encoded, model.encode_text(texts))

    return ask


def constants(model: Any, job: Mapping[str, Any]) -> dict[PretrainedText, dict[tuple[int, ...], torch.Tensor]]:
    """What each frozen text tower has read before any film is asked of: the statements of the bundle's bank, the one sentence of a twin."""
    towers = [part for part in model.modules() if isinstance(part, PretrainedText) and not any(p.requires_grad for p in part.parameters())]
    for tower in towers:
        tower.known = {}
    if towers and not job["reads"]:
        model.encode_text([CONSTANT])
    for part in model.modules() if towers else ():
        if getattr(part, "bank", None) is not None:
            part.encode(part.bank.texts())
    return {tower: dict(tower.known) for tower in towers}


def answering(model: SegmentationModel, batch: int, job: Mapping[str, Any]) -> Callable[[], None]:
    """`asking`, without a thought of gradients."""
    return torch.inference_mode()(asking(model, batch, job))


def training(model: SegmentationModel, job: Mapping[str, Any]) -> Callable[[], None]:
    """One training step: forwards, backwards, optimiser. A frozen text tower reads the sentences of the films at the first one only, as it
    reads those of a data set once.
    """
    model.begin_training(SENTENCES if job["reads"] else [CONSTANT])
    model.to(job["device"])
    optimiser = adamw(model, TrainSection())
    image, texts = films(job["batch"], job)
    mask = torch.rand(job["batch"], 1, job["size_px"], job["size_px"], device=job["device"]) > 0.8

    def step() -> None:
        model.train()
        with autocast(torch.device(job["device"]), job["precision"]):
            output = model(image, texts, mask)
        torch.autograd.backward(torch.stack(list(output.losses.values())).sum())
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def flops(model: SegmentationModel, job: Mapping[str, Any]) -> int:
    """Of one answer to one film. Attention is taken apart, since not every fused kernel is known to the counter."""
    ask = asking(model, 1, job)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        ask()
    return int(counter.get_total_flops())


def peak_bytes(work: Callable[[], Callable[[], None]], turns: int, device: str) -> int:
    """What the largest moment of the turns takes beyond what the process held before `work` loaded the model: the parameters are inside,
    what loading took for a moment is not. On the CPU elsewhere than on Linux a higher peak of loading, or before it, counts too.
    """
    cuda = device.startswith("cuda")
    before = torch.cuda.memory_allocated(device) if cuda else _resident("VmRSS")
    run = work()
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _forget_peak()
    for _ in range(turns):
        run()
    after = torch.cuda.max_memory_allocated(device) if cuda else _resident("VmHWM")
    return max(0, after - before)


def _forget_peak() -> None:
    """From here on VmHWM is the most that the process holds, where Linux allows it (man 5 proc, clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _resident(name: str) -> int:
    """VmRSS, what the process holds, or VmHWM, the most that it has held, in bytes; elsewhere than on Linux the latter for both."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(rf"{name}:\s+(\d+) kB", status.read_text())):
        return 1024 * int(found[1])
    import resource  # not everywhere

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def in_turns(works: Mapping[str, Callable[[], None]], turns: int, device: str) -> dict[str, float]:
    """Median seconds of each, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns + DISCARDED):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if torch.device(device).type != "cpu":
                torch.accelerator.synchronize(device)  # CUDA and MPS return before the work is done
            if turn >= DISCARDED:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def times(job: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds {own, unet} of an answer at batch 1 and 8 and of a training step, the parameters and the operations of an answer."""
    plain = {**job, "bundle": None, "section": UNET, "reads": False, "flips": False}
    model, unet = lay_out(job), lay_out(plain)
    adapted = any(isinstance(part, Adapted) for part in model.modules())  # only then is what answers another than what is trained
    answers = {"own": (lay_out(job, merged=True) if adapted else model, job), "unet": (unet, plain)}
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    told: dict[str, Any] = {
        "params": {"total": total, "trainable": trainable, "frozen": total - trainable},
        "flops": {name: flops(*one) for name, one in answers.items()},
        "unet_params": sum(p.numel() for p in unet.parameters()),
    }
    for batch in (1, 8):
        works = {name: answering(one, batch, its) for name, (one, its) in answers.items()}
        told[f"latency_{batch}_s"] = in_turns(works, job["turns"], job["device"])
    told["step_s"] = in_turns({"own": training(model, job), "unet": training(unet, plain)}, job["turns"], job["device"])
    return told


def measure(task: str, job: Mapping[str, Any]) -> Any:
    """`times`, or peak bytes of `predict` at batch 1 and of `train`."""
    if task == "times":
        return times(job)
    device = job["device"]
    if device.startswith("cuda"):
        torch.zeros(1, device=device)
    count_parameters(job["section"])  # brings in the libraries that only this model needs: they are no part of its memory
    if task == "predict":
        return peak_bytes(lambda: answering(lay_out(job, merged=True), 1, job), 1, device)
    return peak_bytes(lambda: training(lay_out(job), job), STEPS, device)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], json.load(sys.stdin))))
