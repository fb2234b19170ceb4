"""The bench: one protocol for all, cells that go on where they stopped, and a page that holds only what they tell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from reportseg.bundle import load_bundle
from reportseg.data.manifest import read_manifest
from reportseg.data.splits import draw_dev, nested_shares
from reportseg.data.synthetic import synthesise
from reportseg.errors import InputError
from reportseg.io import read_mask
from reportseg.io.png import write_mask
from reportseg.knowledge.bank import load_bank
from reportseg.models import MODELS, build, count_parameters
from reportseg.models.encoders import train_tokenizer
from reportseg.models.unet import UNet
from reportseg.placing import BATCH
from reportseg.schemas.base import read_json
from reportseg.schemas.metrics import Metrics
from test_models_contract import SMALLEST

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import bench  # noqa: E402
import bench_cost  # noqa: E402
import bench_page  # noqa: E402
import bench_probe  # noqa: E402
import bench_prose  # noqa: E402
import bench_protocol  # noqa: E402
import bench_table  # noqa: E402

CPU, GPU = bench_protocol.PROTOCOLS["cpu"], bench_protocol.PROTOCOLS["gpu"]
RATES = (1e-3, 3e-3)
CELLS = ("unet-0", "tgcnet-0", "tgcnet_half-0", "tgcnet_half_no_vlcm-0")


def configured(arm, protocol=CPU, seed=0):
    return bench_protocol.configure(protocol, arm, seed, 1e-3, 24_000, "fp32")


# ---- the protocol


def test_the_cells_are_those_of_the_protocol_and_the_most_telling_come_first():
    cells = list(bench_protocol.cells(CPU))
    assert cells[:5] == ["tgcnet-0", "tmca-0", "tgcnet_twin-0", "tmca_twin-0", "unet-0"] and len(cells) == 36
    order = [arm.name for arm in bench_protocol.arms(CPU)]
    assert cells == [f"{name}-{seed}" for seed in (0, 1) for name in order]
    assert set(order[4:9]) == set(bench_page.PEERS) and all("half" in name for name in order[9:])
    assert {arm.method for arm in bench_protocol.METHODS} == set(MODELS)
    assert [arm.name for arm in bench_protocol.arms(GPU)] == [arm.name for arm in bench_protocol.METHODS]
    assert len([arm for arm in bench_protocol.MODULES if arm.name != arm.full]) == 7
    assert {arm.name for arm in bench_protocol.METHODS} == set(bench_page.NAMES)
    taken = {arm.name: arm.full for arm in bench_protocol.MODULES if arm.name != arm.full}
    assert taken == {name: full for name, (_, full) in bench_page.MODULES.items()} and set(taken) == set(bench_page.MECHANISMS)


def test_the_protocol_is_that_of_the_page():
    told = (CPU.share, CPU.size_px, CPU.output_stride, CPU.images, CPU.batch, CPU.seeds, len(CPU.rates), CPU.search, CPU.split)
    assert told == (0.5, 112, 2, 24_000, 32, (0, 1), 3, 0.25, "val")
    assert bench_page.CLIMBING == 0.005 and bench.LAST == 0.2
    assert f"{configured(bench_protocol.ARMS['tgcnet']).train.text_steps} steps of {BATCH} sentences" in bench_prose.RULES


def test_the_enhancement_is_judged_without_its_pixel_term_and_that_term_by_itself():
    """Without the enhancement its pixel term is gone too: against the full method both would be booked as one."""
    pairs = list(bench_protocol.pairs(CPU))
    assert ("tmca_half_no_pixel_term", "tmca_half_no_enhancement") in pairs and ("tmca_half", "tmca_half_no_pixel_term") in pairs
    assert ("tmca_half", "tmca_half_no_enhancement") not in pairs and len(pairs) == 2 * 8 + 7
    for name in ("tmca_half_no_pixel_term", "tmca_half_no_enhancement"):
        assert configured(bench_protocol.ARMS[name]).model["ltem"]["pixel_loss"] is False


@pytest.mark.parametrize("arm", bench_protocol.arms(CPU), ids=lambda arm: arm.name)
def test_every_arm_is_small_begins_random_and_sees_what_the_others_see(arm):
    config, first = configured(arm), configured(bench_protocol.ARMS["tgcnet"])
    assert count_parameters(config.model)["total"] <= 7_000_000
    assert config.model["output_stride"] == 2 and config.data.size_px == 112 and config.train.batch == 32
    assert all(config.model[part]["source"] == "scratch" for part in ("vision", "text") if part in config.model)
    placed = 400 if MODELS[arm.method][1].reads_text else 0
    assert config.train == first.train.model_copy(update={"text_steps": placed}) and config.name == arm.name
    assert config.data.model_copy(update={"text": "as_written"}) == first.data


@pytest.mark.parametrize("arm", [arm for arm in bench_protocol.arms(CPU) if arm.changes], ids=lambda arm: arm.name)
def test_what_an_arm_changes_is_one_thing(arm):
    one, full = (configured(a).model_dump(exclude={"name"}) for a in (arm, bench_protocol.ARMS[arm.full or arm.method]))
    assert len(differing(one, full)) == 1


def differing(one, other, at="") -> list[str]:
    if isinstance(one, dict):
        return [key for k in one for key in differing(one[k], other[k], f"{at}.{k}")]
    return [] if one == other else [at]


@pytest.mark.parametrize("method", MODELS)
def test_every_method_gives_logits_at_stride_two(method):
    bank = load_bank("chest")
    model = build(SMALLEST[method] | {"output_stride": 2}, train_tokenizer(bank.texts()), bank).eval()
    sides: list[int] = []
    for module in model.modules():
        module.register_forward_hook(
            lambda _, __, out: (
                sides.append(out.shape[-1]) if isinstance(out, torch.Tensor) and out.dim() == 4 and out.shape[1] == 1 else None
            )
        )
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 64, 64), ["upper left lung"]).logits_B1HW
    assert max(sides) == 32 and logits.shape == (1, 1, 64, 64)


def test_a_rise_over_the_last_fifth_is_read_between_two_readings():
    curve = [(600, 0.5), (750, 0.6), (850, 0.7), (1000, 0.72)]  # 0.65 at 800
    assert bench.climb(curve, 1000) == pytest.approx(0.07)
    assert bench.climb([(900, 0.5), (1000, 0.6)], 1000) is None and bench.climb([], 1000) is None


@pytest.mark.parametrize(
    ("effect", "said"),
    [((0.02, 0.001, 0.04), "helps"), ((-0.01, -0.02, 0.002), "does not help"), ((0.01, -0.01, 0.03), "undecided"), (None, "–")],
)
def test_a_verdict_follows_from_the_interval(effect, said):
    assert bench_page.verdict(effect) == said


# ---- the page


def test_the_page_is_what_the_results_tell_and_begins_with_what_it_does_not_rank():
    page = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8")
    assert page == bench_page.text(ROOT / "results"), "python benchmarks/bench_page.py"
    for name in ("bench-cpu", "bench-gpu"):
        figure = ROOT / "docs" / "images" / f"{name}.svg"
        assert (figure.read_text(encoding="utf-8") if figure.exists() else None) == bench_page.picture(ROOT / "results" / name)
        assert (f"](images/{name}.svg)" in page) is figure.exists()
        cost = ROOT / "docs" / "images" / f"{name}-cost.svg"
        drawn = bench_cost.picture(ROOT / "results" / name, bench_page.reached(ROOT / "results" / name))
        assert (cost.read_text(encoding="utf-8") if cost.exists() else None) == drawn
    first = page.splitlines()[2]
    assert first.startswith("**This ranks architectures without pretraining; it does not rank the published models.**")


def fact(seed, rise=0.0):
    climb = dict.fromkeys(bench.SCORES, rise)
    told = {"seed": seed, "params": 1e6, "method": "tgcnet", "images": 1, "lr": 1e-3, "seconds": 1, "commit": None, "figures": {}}
    return told | {"climb": climb}


def scored(value):
    return dict.fromkeys(bench.SCORES, value) | {"controls": {}}


def test_differences_have_both_scores_with_intervals_and_say_which_peer_is_not_beaten():
    effects = {"unet": (0.02, 0.01, 0.03), "lvit": (0.004, -0.001, 0.009), "tgcnet_twin": (-0.1, -0.2, -0.05)}
    minus = {arm: {"seeds": [0, 1], "dice_pooled": (0.03, 0.02, 0.04), "dice_mean": effect} for arm, effect in effects.items()}
    minus["mmiunet"] = {"seeds": [0], "dice_pooled": (-0.0031, -0.006, -0.001), "dice_mean": (0.01, 0.005, 0.02)}
    page = bench_page._differences({"tgcnet": minus}, {})
    assert "| TGC-Net | U-Net | 0, 1 | +0.0300 [+0.0200, +0.0400] | +0.0200 [+0.0100, +0.0300] |" in page
    assert "| TGC-Net | MMI-UNet | 0 |" in page
    said = page.splitlines()[3]
    assert said.startswith("**TGC-Net is above every peer that has been run (U-Net, LViT, MMI-UNet) but LViT, MMI-UNet on both scores**; ")
    assert "; not told apart from LViT on dice_mean (+0.0040 [−0.0010, +0.0090]); below MMI-UNet on dice_pooled (−0.0031 [" in said
    assert said.endswith("; by one seed alone: MMI-UNet; not yet run: LanGuideMedSeg, ResEnc U-Net.")
    minus = {arm: {"seeds": [0], "dice_pooled": (0.03, 0.02, 0.04), "dice_mean": (0.03, 0.02, 0.04)} for arm in bench_page.PEERS}
    assert "**TMCA is above every peer on both scores**, by one seed alone.\n" in bench_page._differences({"tmca": minus}, {})
    assert bench_page._differences({}, {}) == ""


@pytest.mark.parametrize(("rise", "mark"), [(0.0051, "climbing"), (0.0049, ""), (None, ""), (-0.0049, ""), (-0.0051, "falling")])
def test_a_curve_that_still_climbs_or_falls_is_marked(rise, mark):
    told = {"arms": {}, "differences": {}}
    row = bench_page._methods(
        {**dict.fromkeys(bench_page.NAMES, []), "unet": [(scored(0.7), fact(0, rise))]}, dict.fromkeys(bench_page.NAMES, []), told, {}, "b"
    )
    assert row.splitlines()[-1].endswith(f"| {mark} |")


def test_how_far_a_method_falls_under_other_sentences_is_told_in_points_and_of_a_film_without_text_not():
    def fallen(by):
        return {"dice_pooled": 0.5, "difference": {"dice_pooled": [by, by - 0.01, by + 0.01]}}

    runs = [scored(0.8) | {"controls": {"shuffled": fallen(by), "swapped-side": fallen(-by)}} for by in (0.31, 0.25)]
    of = {**dict.fromkeys(bench_page.NAMES, []), "unet": [(scored(0.7), fact(0))], "lvit": list(zip(runs, map(fact, (0, 1)), strict=True))}
    page = bench_page._methods(of, dict.fromkeys(bench_page.NAMES, []), {"arms": {}}, {}, "b")
    assert "| shuffled | sides swapped | marks |" in page and "| 28.0 | -28.0 |" in page
    assert page.splitlines()[-1].endswith("| 0.7000 | – | – |  |")


def test_the_page_tells_nothing_of_cells_that_were_deleted_since_the_table_was_made(tmp_path):
    folder = tmp_path / "bench-cpu"
    put(folder, "protocol.json", {"precision": "fp32", "on": "cpu", "threads": 1, "train_films": 9, "rates": [1e-3], "seeds": [0]})
    put(folder, "search.json", {})
    minus = {"seeds": [0], "dice_pooled": (0.2, 0.1, 0.3), "dice_mean": (0.2, 0.1, 0.3)}
    differences = {"tgcnet": {"unet": minus, "lvit": minus}, "tmca_half": {"tmca_half_no_alignment": minus}}
    put(folder, "table.json", {"arms": {}, "differences": differences})
    for cell in ("tgcnet-0", "lvit-0", "tmca_half-0"):
        put(folder, f"{cell}/metrics.json", scored(0.7))
        put(folder, f"{cell}/cell.json", fact(0))
    page = bench_page.text(tmp_path)
    assert "| TGC-Net | LViT | 0 |" in page and "| TGC-Net | U-Net |" not in page
    assert "**TGC-Net is above every peer that has been run (LViT) on both scores**" in page
    assert "No module has been taken away yet." in page


def test_what_no_longer_lies_in_the_results_leaves_the_table(tmp_path):
    gone = {"seeds": [0], "bundles": ["00" * 32, "11" * 32], "dice_mean": (0.1, 0.0, 0.2)}
    table = {"arms": {"unet": gone, "lvit": gone}, "differences": {"tgcnet": {"unet": gone}, "tmca_half": {"tmca_half_no_alignment": gone}}}
    told = bench_table.update(table, CPU, tmp_path, [])
    assert told["arms"] == {} and not any(told["differences"].values())


def test_of_two_seeds_both_differences_are_shown_and_no_p():
    minus = {"seeds": [0, 1], "dice_pooled": (0.05, 0.02, 0.08), "dice_mean": (0.05, 0.02, 0.08)}
    of = {"tgcnet": [(scored(0.8), fact(0)), (scored(0.6), fact(1))], "unet": [(scored(0.6), fact(0)), (scored(0.7), fact(1))]}
    row = bench_page._differences({"tgcnet": {"unet": minus}}, of).splitlines()[-1]
    assert row.count("(+0.2000, −0.1000)") == 2, "they disagree, which the mean hides"
    of = {"tmca_half": of["tgcnet"], "tmca_half_no_pixel_term": of["unet"]}
    modules = bench_page._modules(of, {"tmca_half": {"tmca_half_no_pixel_term": minus}}, [0, 1])
    assert modules.count("(+0.2000, −0.1000)") == 2
    assert not re.search(r"\bp\b", row + modules)


def test_a_row_of_modules_is_about_the_seeds_that_both_have():
    first, without = fact(0) | {"figures": {"dev_auroc_A8": 0.9}}, fact(0) | {"figures": {"dev_auroc_A8": 0.6}}
    of = {"tmca_half": [(scored(0.7), first), (scored(0.5), fact(1, rise=0.01))], "tmca_half_no_pixel_term": [(scored(0.6), without)]}
    minus = {"seeds": [0], "dice_pooled": (0.1, 0.05, 0.2), "dice_mean": (0.1, 0.05, 0.2)}
    table = {"tmca_half": {"tmca_half_no_pixel_term": minus}}
    row = bench_page._modules(of, table, [0]).splitlines()[-1]
    told = "| 0.7000 | helps | AUROC of A, stride 8: 0.900 with, 0.600 without |  |"
    assert row.startswith("| pixel term of the enhancement | TMCA | 0 | +0.1000") and told in row
    assert "| not yet |" in bench_page._modules(of, table, [0, 1]), "both seeds were to be run before anything is said"


def put(folder: Path, name: str, values: dict) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))


def test_a_cell_that_diverged_is_a_row_with_its_reason_and_its_method_has_no_rank(tmp_path):
    folder = tmp_path / "bench-cpu"
    put(folder, "protocol.json", {"precision": "fp32", "on": "cpu", "threads": 1, "train_films": 9, "rates": [1e-3], "seeds": [0]})
    put(folder, "search.json", {})
    minus = {"seeds": [0], "dice_pooled": (0.2, 0.1, 0.3), "dice_mean": (0.2, 0.1, 0.3)}
    put(folder, "table.json", {"arms": {}, "differences": {"tgcnet": {"unet": minus, "lvit": minus}}})
    for cell, value in {"tgcnet-0": 0.7, "unet-0": 0.9, "lvit-0": 0.6}.items():
        put(folder, f"{cell}/metrics.json", scored(value))
        put(folder, f"{cell}/cell.json", fact(0))
    why = "training diverged at step 3: loss or gradient is not finite"
    for cell, seed in (("unet-1", 1), ("mmiunet-0", 0), ("lvit-0", 0)):  # that of lvit is of an earlier try
        put(folder, f"{cell}/failed.json", fact(seed) | {"why": why})
    page = bench_page.text(tmp_path)
    methods = [line for line in page.partition("### Methods")[2].partition("###")[0].splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0] for line in methods[1:]] == ["| TGC-Net", "| LViT", "| U-Net", "| MMI-UNet"]
    assert methods[3].endswith("| 0 | 0.9000 | 0.9000 | – | – | seed 1 diverged |") and methods[4].endswith(
        "| – | – | – | – | – | seed 0 diverged |"
    )
    assert [f"| `{cell}` | 1 | 0.001 | diverged: {why} | – |" in page for cell in ("unet-1", "mmiunet-0", "lvit-0")] == [True, True, False]
    assert "| TGC-Net | LViT | 0 |" in page and "| TGC-Net | U-Net |" not in page
    drawn = bench_page.picture(folder)
    assert drawn is not None and re.findall("<title>([^<]+)", drawn) == ["TGC-Net", "LViT"] * 2, "as the table ranks them"
    ElementTree.fromstring(drawn)
    said = next(line for line in page.splitlines() if line.startswith("**TGC-Net is "))
    above = "**TGC-Net is above every peer that has been scored (LViT) on both scores**"
    assert said == f"{above}, by one seed alone; not yet run: LanGuideMedSeg, ResEnc U-Net; diverged: U-Net, MMI-UNet."


def cost_row(name, time):
    ratios = {"latency_1_s": time, "train_time": 2 * time}
    costs = {"flops": 10**9, "predict_bytes": 2**20, "train_bytes": 1, "latency_1_s": 1, "latency_8_s": 1, "train_images_per_s": 1}
    return {"name": name, "model": "m", "params": {"total": 10**6}, **costs, "ratios": ratios}


def test_what_methods_cost_stands_beside_their_scores_and_whom_none_beats_is_named(tmp_path):
    names = {"tgcnet": ("TGC-Net", 0.8), "unet": ("U-Net", 0.7), "lvit": ("LViT", 0.6), "tmca": ("TMCA", 0.5)}
    reached = {arm: bench_cost.Reached(name, score, None, None) for arm, (name, score) in names.items()}
    assert bench_cost.section(tmp_path, reached) == "" and bench_cost.picture(tmp_path, reached) is None
    told = {"size_px": 112, "batch": 32, "device": "cpu", "precision": "bf16", "threads": 2, "metric": None}
    rows = [cost_row(*row) for row in (("unet, 31 M", 1), ("unet", 0.5), ("tgcnet", 0.4), ("lvit", 0.3), ("tgcnet_half", 0.1))]
    put(tmp_path, "cost.json", {"command": "reportseg study cost", **told, "rows": rows})
    page = bench_cost.section(tmp_path, reached)
    lines = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[1:5] for line in lines] == [
        ["TGC-Net", "0.8000", "0.40", "0.80"],
        ["U-Net", "0.7000", "0.50", "1.00"],
        ["LViT", "0.6000", "0.30", "0.60"],
    ]
    assert "Time of an answer: on the front are LViT, TGC-Net." in page
    drawn = bench_cost.picture(tmp_path, reached)
    assert [f"{i}  {name}</text>" in drawn for i, name in enumerate(("TGC-Net", "U-Net", "LViT"), 1)] == [True] * 3
    ElementTree.fromstring(drawn)


def test_a_method_whose_rates_are_to_be_searched_again_is_named():
    tried = dict.fromkeys(("0.001", "0.003"), {"dice_pooled": 0.5, "dice_mean": 0.5})
    told = bench_page._rates({"unet": tried, "lvit": {"0.001": tried["0.001"]}}, 2, ["unet", "lvit", "tmca"])
    assert "To be searched again, for a change of the code, before further cells: LViT, TMCA." in told
    assert "again" not in bench_page._rates({"unet": tried}, 2, ["unet"])


def test_a_bench_whose_only_cell_diverged_says_so_and_names_no_film(make, monkeypatch):
    one = make()
    one.search = {"unet": {str(rate): {"dice_pooled": rate, "dice_mean": rate, "images_per_s": 1.0} for rate in RATES}}
    one._store(bench.SEARCH, one.search)
    counted_trainings(monkeypatch, diverge=RATES)
    assert one.run(["unet-1"]) == 3 and not one.done("unet-1")
    told = json.loads((one.results / "unet-1" / bench.FAILED).read_text())
    assert told["why"] == "training diverged" and told["seed"] == 1 and told["lr"] == RATES[1]
    page = one.page.read_text()
    assert page == bench_page.text(one.results.parent) and "| `unet-1` |" in page and "diverged: training diverged |" in page
    assert "film7" not in page + json.dumps(told)


# ---- a bench of phantoms


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("films") / "phantoms", 60, size=32)


@pytest.fixture(scope="module")
def make(tmp_path_factory, films) -> Callable[..., bench.Bench]:
    """A bench of tiny models on phantoms, 64 images a cell, in a folder of its own."""

    def made(folder=None) -> bench.Bench:
        folder = folder or tmp_path_factory.mktemp("bench")
        for method, section in SMALLEST.items():
            text = {"name": method, "data": {"size_px": 32}, "model": section, "train": {"ema": 0.5}}
            (folder / f"{method}.yaml").write_text(json.dumps(text))
        tiny = replace(CPU, size_px=32, images=64, batch=16, rates=RATES, recipe=str(folder / "{}.yaml"))
        return bench.Bench(tiny, films, folder / "runs" / tiny.name, folder / "results" / tiny.name, folder / "bench.md")

    return made


def folder_of(one) -> Path:
    return one.page.parent


def counted_trainings(monkeypatch, *, stop_at=None, diverge=()):
    """The configurations that are trained from now on. The one of number `stop_at` is interrupted; rates in `diverge` diverge."""
    seen, real = [], bench.train

    def train(config, **options):
        seen.append(config)
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        if config.train.lr in diverge:
            raise InputError("training diverged. Films of this batch: film7", "", "", "diverged")
        return real(config, **options)

    monkeypatch.setattr(bench, "train", train)
    return seen


def test_half_of_the_films_is_whole_patients_and_what_is_listed(make, films):
    one, samples = make(), read_manifest(films).split("train")
    assert one.part == set(nested_shares(samples, "phantoms", [0.5])[0]) and abs(len(one.part) - len(samples) / 2) <= 2
    patients = {s.patient for s in samples if s.id in one.part}
    assert not patients & {s.patient for s in samples if s.id not in one.part}
    dev = len(draw_dev([s for s in samples if s.id in one.part], "phantoms"))
    listed = one.listing(["tgcnet", "unet-0"]).splitlines()
    assert [line.split()[0] for line in listed[1:4]] == ["tgcnet-0", "unet-0", "tgcnet-1"]
    assert f"{len(one.part)} of {len(samples)} training films, {dev} of them dev" in listed[-1] and "in part guessed" in listed[-1]
    assert not folder_of(one).joinpath("runs").exists() and not folder_of(one).joinpath("results").exists()


def test_a_cell_that_does_not_exist_is_refused_with_those_that_do(make):
    with pytest.raises(InputError, match=r"no such cell.*tgcnet-0"):
        make().run(["tgcnet-9"])


def test_the_protocol_for_an_accelerator_is_not_run_on_a_cpu(films, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "pick_device", lambda name: torch.device("cpu"))
    with pytest.raises(InputError, match="for an accelerator, and there is none") as caught:
        bench.Bench(GPU, films, tmp_path / "runs", tmp_path / "results", tmp_path / "bench.md").run(["unet-0"])
    assert caught.value.code == "device" and not (tmp_path / "results").exists()


def test_when_the_time_is_up_nothing_is_begun(make, monkeypatch, capsys):
    seen = counted_trainings(monkeypatch)
    assert make().run(minutes=-1) == 0 and not seen
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.slow
def test_a_bench_that_was_interrupted_goes_on_and_ends_in_cells_and_a_page(make, monkeypatch, films):
    one = make()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counted_trainings(patch, stop_at=2)
        one.run(CELLS)
    assert json.loads((one.results / bench.SEARCH).read_text()).keys() == {"tgcnet"}

    seen = counted_trainings(monkeypatch)
    one = make(folder_of(one))
    assert one.run(CELLS) == 0
    tried = [(config.name, config.train.lr, config.train.images) for config in seen]
    rate = {method: one.best(method) for method in ("tgcnet", "unet")}
    cell = [("tgcnet", rate["tgcnet"], 64), ("unet", RATES[0], 16), ("unet", RATES[1], 16), ("unet", rate["unet"], 64)]
    half = [("tgcnet_half", rate["tgcnet"], 32), ("tgcnet_half_no_vlcm", rate["tgcnet"], 32)]
    assert tried == [("tgcnet", RATES[1], 16), *cell, *half]  # the first rate had been tried

    for name in CELLS:
        metrics, facts = read_json(one.results / name / "metrics.json", Metrics), json.loads((one.results / name / bench.CELL).read_text())
        assert metrics.command == facts["command"] == f"python benchmarks/bench.py cpu phantoms --cells {name}"
        assert metrics.split == "val" and metrics.n_cases == len(read_manifest(films).split("val"))
        assert set(metrics.controls) == (set() if name == "unet-0" else {"original", "empty", "shuffled", "swapped-side"})
        assert facts["lr"] == rate[facts["method"]] and facts["half_the_images"] == ("half" in name)
        assert facts["config"]["data"]["manifest"] is None and facts["figures"]
    for path in one.results.rglob("*.json"):
        assert str(folder_of(one)) not in path.read_text() and str(films.parent) not in path.read_text()
    assert not list(one.work.rglob("checkpoints"))

    table = json.loads((one.results / bench.TABLE).read_text())
    value, low, high = table["differences"]["tgcnet_half"]["tgcnet_half_no_vlcm"]["dice_mean"]
    scores = [json.loads((one.results / name / "metrics.json").read_text())["dice_mean"] for name in CELLS[2:]]
    assert value == pytest.approx(scores[0] - scores[1]) and low <= value <= high
    assert table["differences"]["tgcnet"]["unet"]["seeds"] == [0] and "lvit" not in table["differences"]["tgcnet"]
    page = one.page.read_text()
    assert page == bench_page.text(one.results.parent)
    for said in (
        "### Methods",
        "| TGC-Net |",
        "| U-Net |",
        "### Learning rates",
        "| VLCM | TGC-Net | 0 |",
        "### Differences",
        "| TGC-Net | U-Net | 0 |",
        "`tgcnet_half_no_vlcm-0`",
    ):
        assert said in page
    assert "end of the grid" in page and "No cell has been run yet." in page.partition("## On an accelerator")[2]

    seen.clear()
    before = {path: path.read_bytes() for path in one.results.rglob("*.json")}
    assert make(folder_of(one)).run(CELLS) == 0 and not seen
    assert before == {path: path.read_bytes() for path in one.results.rglob("*.json")}

    (one.results / bench.TABLE).unlink()
    shutil.rmtree(one.work)
    assert make(folder_of(one)).run(CELLS) == 0 and not seen, "another machine, which has the results only"
    assert before == {path: path.read_bytes() for path in one.results.rglob("*.json")}
    counts = json.loads((one.results / "unet-0" / bench_table.COUNTS).read_text())
    assert [len(counts[name]) for name in bench_table.PIXELS] == 3 * [len(read_manifest(films).split("val"))]
    tp, wrong = sum(counts["tp"]), sum(counts["fp"]) + sum(counts["fn"])
    assert 2 * tp / (2 * tp + wrong) == pytest.approx(read_json(one.results / "unet-0" / "metrics.json", Metrics).dice_pooled)
    assert not any(film.id in path.read_text() for film in read_manifest(films).samples for path in one.results.rglob("*.json"))
    with pytest.raises(InputError, match="not those of the split") as caught:
        bench_table.cases(one.results, "unet", [0], one._films()[1:])
    assert caught.value.code == "protocol"
    assert "done" in one.listing(["unet"]) and "guessed" not in one.listing(["tgcnet", "unet"]) and "guessed" in one.listing([])
    with pytest.raises(InputError, match=r"recipe of unet-0 has changed .*: data.augment, model.width") as caught:
        one = make(folder_of(one))
        recipe = folder_of(one) / "unet.yaml"
        changed = json.loads(recipe.read_text())
        recipe.write_text(json.dumps(changed | {"model": {"name": "unet", "width": 8}, "data": {"augment": None}}))
        one.run(["lvit-0"])
    assert caught.value.code == "protocol" and not one.done("lvit-0")
    with pytest.raises(InputError, match="begun with another images"):
        replaced = make(folder_of(one))
        replaced.protocol = replace(replaced.protocol, images=128)
        replaced.run(CELLS)


def scale_losses(monkeypatch, factor):
    """Another code of U-Net."""
    real = UNet.decode

    def decode(self, *given):
        output = real(self, *given)
        return replace(output, losses={name: loss * factor for name, loss in output.losses.items()})

    monkeypatch.setattr(UNet, "decode", decode)
    bench_probe._probe.cache_clear()


@pytest.fixture
def fresh_probes():
    """What other tests computed of another code, and this one leaves behind, is forgotten."""
    bench_probe._probe.cache_clear()
    yield
    bench_probe._probe.cache_clear()


@pytest.mark.slow
def test_a_cell_of_other_code_stops_the_bench_and_is_trained_anew_once_it_is_deleted(make, monkeypatch, fresh_probes):
    one = make()
    assert one.run(["unet-0"]) == 0
    old = json.loads((one.results / "unet-0" / bench.CELL).read_text())
    probe = bench_probe.probe(configured(bench_protocol.ARMS["unet"], one.protocol).model)
    assert old["probe"] == probe

    with monkeypatch.context() as patch:
        scale_losses(patch, 1.0001)  # rounding
        assert make(folder_of(one)).run(["unet-0"]) == 0
    scale_losses(monkeypatch, 1.5)
    with pytest.raises(InputError, match=r"the code of unet-0 has changed since it was trained: mask .*, was ") as caught:
        make(folder_of(one)).run(["tgcnet-0"])
    assert caught.value.code == "protocol"

    shutil.rmtree(one.results / "unet-0")
    seen = counted_trainings(monkeypatch)
    assert make(folder_of(one)).run(["unet-0"]) == 0
    assert [config.train.images for config in seen] == [16, 16, 64], "the search too is that of the new code"
    told = {path.name for path in (one.work / "runs").iterdir()}
    assert told == {"unet-0", f"unet-0{bench.BEGUN}"}
    new = json.loads((one.results / "unet-0" / bench.CELL).read_text())
    assert bench_probe.difference(old["probe"], new["probe"])
    assert new["figures"]["total"] > 1.3 * old["figures"]["total"], "nothing of the old run is left"
    metrics = read_json(one.results / "unet-0" / "metrics.json", Metrics)
    assert metrics.bundle_sha256 == load_bundle(one.work / "runs" / "unet-0" / "bundle").sha256, "nor of its evaluation"


@pytest.mark.slow
def test_all_cells_of_a_method_have_the_rate_that_its_search_found_and_other_methods_do_not_wait(make, capsys):
    one = make()
    assert one.run(["unet-0"]) == 0
    rate = json.loads((one.results / "unet-0" / bench.CELL).read_text())["lr"]
    for value, tried in one.search["unet"].items():
        tried["dice_mean"] = float(float(value) != rate)
    one._store(bench.SEARCH, one.search)
    again = make(folder_of(one))
    assert again.run(["unet-1", "languidemedseg-0"]) == 3 and again.done("languidemedseg-0") and not again.done("unet-1")
    assert f"unet-0 was trained with a learning rate of {rate:g}, and that of its method is" in capsys.readouterr().err


@pytest.mark.slow
def test_the_rates_of_another_recipe_are_tried_anew_and_a_run_that_it_began_is_not_gone_on_with(make, monkeypatch):
    one = make()
    assert one.run(["unet-0"]) == 0
    shutil.rmtree(one.results / "unet-0")
    one = make(folder_of(one))
    recipe = folder_of(one) / "unet.yaml"
    recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"data": {"augment": None}}))
    seen = counted_trainings(monkeypatch)
    assert one.run(["unet-0"]) == 0 and [config.train.images for config in seen] == [16, 16, 64]
    assert json.loads((one.results / "unet-0" / bench.CELL).read_text())["config"]["data"]["augment"] is None
    assert make(folder_of(one)).search["unet"][str(RATES[0])]["config"]["data"]["augment"] is None


@pytest.mark.slow
def test_a_cell_without_a_probe_is_taken_as_it_is(make, monkeypatch, fresh_probes):
    """The first cells were written without."""
    one = make()
    assert one.run(["unet-0"]) == 0
    for path, keys in ((one.results / "unet-0" / bench.CELL, []), (one.results / bench.SEARCH, ["unet", str(RATES[0])])):
        values = json.loads(path.read_text())
        place = values
        for key in keys:
            place = place[key]
        del place["probe"]
        path.write_text(json.dumps(values))
    seen = counted_trainings(monkeypatch)
    assert make(folder_of(one)).run(["unet-0"]) == 0 and not seen


def corrected(film):
    write_mask(film.mask, ~read_mask(film.mask))


def reworded(film):
    table = film.image.parents[1] / "manifest.csv"
    table.write_text(table.read_text().replace(film.text, "An opacity somewhere."))


@pytest.mark.slow
@pytest.mark.parametrize(("change", "what"), [(corrected, "masks of train"), (reworded, "sentences")])
def test_a_cell_is_held_to_what_the_films_showed_and_said_when_it_was_trained(make, tmp_path, monkeypatch, change, what):
    data = synthesise(tmp_path / "phantoms", 60, size=32)
    one = make()
    one.dataset = read_manifest(data)
    one.train_films = one.dataset.split("train")
    assert one.run(["unet-0"]) == 0
    change(next(film for film in one.train_films if film.id in one.part))
    one.dataset = read_manifest(data)
    one.train_films = one.dataset.split("train")
    with pytest.raises(InputError, match=rf"the data of unet-0 has changed since it was trained: {what}\.") as caught:
        one.run(["unet-1"])
    assert caught.value.code == "protocol" and "delete the folders of all cells" in caught.value.fix and not one.done("unet-1")
    shutil.rmtree(one.results / "unet-0")
    seen = counted_trainings(monkeypatch)
    assert one.run(["unet-0"]) == 0 and [config.train.images for config in seen] == [16, 16, 64], "its rates and the run too"


@pytest.mark.slow
def test_a_cell_is_held_to_the_true_masks_that_it_was_scored_on(make, tmp_path):
    """Another machine may have imported the data set in another way: the ids agree, and nothing else would tell."""
    data = synthesise(tmp_path / "phantoms", 60, size=32)
    one = make()
    one.dataset = read_manifest(data)
    assert one.run(["unet-0"]) == 0
    film = one.dataset.split("val")[0]
    write_mask(film.mask, ~read_mask(film.mask))
    with pytest.raises(InputError, match="true masks or the patients are not those that unet-0 was scored on") as caught:
        one.run(["unet-1"])
    assert caught.value.code == "protocol" and not one.done("unet-1")


def test_another_machine_finds_the_same_numbers_but_for_rounding_and_other_code_other_ones():
    figures = {"mask": 1.5, "align_4": 0.0, "norm": 7.0}
    assert not bench_probe.difference(figures, {"mask": 1.5004, "align_4": 1e-8, "norm": 6.999})
    assert bench_probe.difference(figures, {**figures, "norm": 7.1}) == "norm 7.1, was 7"
    assert bench_probe.difference(figures, {"mask": 1.5, "norm": 7.0}) == "align_4 none, was 0"
    assert bench_probe.difference(None, figures) == ""


@pytest.mark.slow
def test_what_lies_in_results_was_made_by_this_recipe_and_this_code():
    """Else the bench would stop; a change of the probe alone has to restate what was written down. The data set is not at hand here."""
    folder = ROOT / "results" / CPU.name
    precision = json.loads((folder / "protocol.json").read_text())["precision"]
    told = [json.loads(path.read_text()) for path in sorted(folder.glob("*/cell.json"))]
    asked = [
        bench_protocol.configure(CPU, bench_protocol.ARMS[one["cell"].rpartition("-")[0]], one["seed"], one["lr"], one["images"], precision)
        for one in told
    ]
    for method, tried in json.loads((folder / "search.json").read_text()).items():
        told += tried.values()
        asked += [bench_protocol.configure(CPU, bench_protocol.ARMS[method], 0, float(rate), 6_000, precision) for rate in tried]
    assert told and [bench.changed(one, config, one.get("films", {})) for one, config in zip(told, asked, strict=True)] == [None] * len(
        told
    )


def test_what_a_model_keeps_of_films_is_probed_too(monkeypatch, fresh_probes):
    section = configured(bench_protocol.ARMS["tmca"]).model
    before = bench_probe.probe(section)
    bench_probe._probe.cache_clear()
    monkeypatch.setattr("reportseg.models.alignment.OVERLAP_SHARE", 0.6)
    assert "align_4" in bench_probe.difference(before, bench_probe.probe(section))


def test_arms_that_differ_in_a_module_differ_in_their_probe_and_twins_and_seeds_do_not():
    def of(name, seed=0):
        return bench_probe.probe(configured(bench_protocol.ARMS[name], seed=seed).model)

    assert of("tgcnet") == of("tgcnet", 1) == of("tgcnet_twin") == of("tgcnet_half")
    for arm in bench_protocol.MODULES:
        if arm.full != arm.name:
            assert bench_probe.difference(of(arm.full), of(arm.name))


@pytest.mark.slow
def test_a_rate_that_diverges_is_written_down_and_not_chosen_and_a_cell_that_fails_does_not_stop_the_others(make, monkeypatch, capsys):
    one = make()
    counted_trainings(monkeypatch, diverge=(RATES[0],))
    assert one.run(["unet-0"]) == 0 and one.best("unet") == RATES[1]
    tried = json.loads((one.results / bench.SEARCH).read_text())["unet"][str(RATES[0])]
    assert tried.keys() == {*bench.SCORES, "images_per_s", "config", "probe", "films"} and not any(tried[name] for name in bench.SCORES)
    assert "| U-Net | diverged | **" in one.page.read_text()
    counted_trainings(monkeypatch, diverge=RATES)
    assert one.run(["unet"]) == 3  # unet-1 diverges at the rate that was chosen
    assert "training diverged" in capsys.readouterr().err and not one.done("unet-1")


KILLED = """
import json, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import bench, bench_protocol
bench_protocol.CHECKPOINT_MINUTES = 1e-6
folder = Path(sys.argv[3])
tiny = replace(bench_protocol.PROTOCOLS["cpu"], **json.loads(sys.argv[4]))
bench.Bench(tiny, sys.argv[2], folder / "runs" / tiny.name, folder / "results" / tiny.name, folder / "bench.md").run(["unet-0"])
"""


@pytest.mark.slow
def test_a_cell_that_was_killed_goes_on_from_its_checkpoint_and_the_search_is_not_repeated(make, monkeypatch, films):
    one = make()
    one.protocol = replace(one.protocol, images=4_000)
    asked = {"size_px": 32, "images": 4_000, "batch": 16, "rates": RATES, "search": 0.01, "recipe": one.protocol.recipe}
    one.protocol = replace(one.protocol, search=0.01)
    run = one.work / "runs" / "unet-0"
    command = [sys.executable, "-c", KILLED, str(ROOT / "benchmarks"), str(films), str(folder_of(one)), json.dumps(asked)]
    child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while not list(run.glob("checkpoints/previous*")) and child.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == -9 and not (run / "bundle").exists() and not one.done("unet-0")

    begun, real = {}, bench.train

    def train(config, *, progress, **options):
        def report(facts):
            begun.setdefault(config.name, facts["images"]) if "images" in facts else None
            progress(facts)

        return real(config, progress=report, **options)

    monkeypatch.setattr(bench, "train", train)
    searched = (one.results / bench.SEARCH).read_bytes()
    one.search = json.loads(searched)
    assert one.run(["unet-0"]) == 0 and one.done("unet-0")
    assert begun.keys() == {"unet"} and begun["unet"] > 16, "the first step is not the first of all"
    assert (one.results / bench.SEARCH).read_bytes() == searched
    assert json.loads((one.results / "unet-0" / bench.CELL).read_text())["images"] == 4_000
