"""dev chooses weights and fits the decision; the similarity maps are read by their AUROC."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from reportseg import dev as fitting
from reportseg.data.cache import FilmCache
from reportseg.decision import Decision
from reportseg.dev import averaged, fit_decision, score_dev, separation
from reportseg.models import ModelOutput, build
from reportseg.models.encoders import train_tokenizer
from reportseg.types import Sample


def test_the_average_is_in_the_model_for_a_while():
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    with pytest.raises(KeyError), averaged(model, {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}):
        assert not model.weight.any()
        raise KeyError
    assert torch.equal(model.weight, before)


def test_separation_is_the_auroc_of_each_film():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 1, 8, 8)).astype(np.float32)
    mask = rng.random((3, 1, 8, 8)) < 0.3
    found = separation(torch.from_numpy(values), torch.from_numpy(mask))
    for i in range(3):
        inside, outside = values[i][mask[i]], values[i][~mask[i]]
        assert found[i] == pytest.approx(mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside)))


def test_separation_counts_ties_half_and_knows_no_answer_for_one_side():
    mask = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2] = True
    mask[1] = True
    flat = separation(torch.zeros(3, 1, 4, 4), mask)
    assert flat[0] == 0.5 and np.isnan(flat[1:]).all()


def test_separation_reads_coarse_maps_against_the_area():
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    assert separation(torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]]), mask)[0] == 1.0


def test_separation_stretches_a_map_over_the_film_or_lets_its_last_cell_end_beyond():
    mask = torch.zeros(1, 1, 112, 112, dtype=torch.bool)
    mask[..., 64:100] = True
    third, two = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    third[..., 2] = 1  # of cells of 32 px; the fourth ends at 128, and has a quarter of its film covered
    two[..., 2:] = 1  # of cells of 28 px
    assert separation(third, mask, 32)[0] == 1.0 and separation(two, mask)[0] == 1.0
    assert separation(third, mask)[0] < 1 and separation(two, mask, 32)[0] < 1


@pytest.mark.parametrize(("name", "map_of"), [("tgcnet", "S32"), ("tmca", "A32")])
def test_dev_reads_a_map_on_the_cells_that_it_is_trained_on(name, map_of):
    """112 px: TGC-Net's four cells have 28 px, those of TMCA 32."""
    model = build({"name": name, "preset": "tiny"}, train_tokenizer(["left lung"]))
    mask = torch.zeros(1, 1, 112, 112, dtype=torch.bool)
    output = model(torch.rand(1, 3, 112, 112), ["left lung"], mask)
    assert output.maps[map_of].shape == (1, 1, 4, 4) and output.strides.get(map_of) == (32 if name == "tmca" else None)


class Painter:
    """An engine whose answer is known: `paint(image_B3HW, texts)` gives the logits, and the film itself is a map."""

    device = torch.device("cpu")
    model = types.SimpleNamespace(reads_text=True)

    def __init__(self, paint):
        self.paint, self.sizes = paint, set()

    def encode_image(self, image_B3HW):
        self.sizes.add(tuple(image_B3HW.shape[1:]))
        return image_B3HW

    def encode_text(self, texts):
        return texts

    def decode(self, image_B3HW, texts, mask_B1HW=None):
        return ModelOutput(self.paint(image_B3HW, texts), maps={} if mask_B1HW is None else {"film": image_B3HW[:, :1]})

    def run(self, image_B3HW, texts):
        return self.decode(self.encode_image(image_B3HW), self.encode_text(texts))


def asked(text, i=0, **fields):
    return Sample(**{"id": f"f{i}", "image": Path(f"f{i}.png"), "mask": None, "text": text} | fields)


def test_dev_scores_are_those_of_each_film_with_its_own_sentence_and_mask():
    """34 films, more than are asked at once. All have one half bright, which is painted and was drawn, but for three."""
    images, masks = np.zeros((34, 1, 8, 8), np.uint8), np.zeros((34, 8, 8), np.uint8)
    for i in range(34):
        half = slice(0, 4) if i % 2 else slice(4, 8)
        images[i, 0, :, half], masks[i, :, half] = 255, 1
    texts = ["bright"] * 34
    texts[5] = "nothing"  # is drawn: Dice 0
    texts[33], masks[33] = "nothing", 0  # neither: Dice 1, and no AUROC
    masks[32] = 0
    masks[32, :4] = 1  # another half than the bright one, which share a quarter: Dice 0.5, AUROC 0.5
    sees = {"bright": 1.0, "nothing": 0.0}
    engine = Painter(lambda image, texts: image[:, :1] * torch.tensor([sees[t] for t in texts])[:, None, None, None] - 0.5)
    found = score_dev(engine, [asked("no", i) for i in range(34)], FilmCache(images, masks), 4, lambda sample: texts[int(sample.id[1:])])
    assert engine.sizes == {(3, 4, 4)}
    shared, together = 31 * 32 + 16, 31 * 64 + 32 + 64
    assert found == pytest.approx({"dice_mean": 31.0 / 34 + 1.5 / 34, "dice_pooled": 2 * shared / together, "auroc_film": 32.5 / 33})


LEFT_HALF, RIGHT_HALF = torch.tensor([1.0] * 4 + [-1.0] * 4), torch.tensor([-1.0] * 4 + [1.0] * 4)
CANNOT_TURN = "upper lt lung"


def test_with_flips_the_answer_to_the_mirrored_film_is_asked_for_the_other_side_and_turned_back(tmp_path, monkeypatch):
    """The painter paints the half that the sentence names over the film, so mirrored and turned back its answer is the same, bit for bit,
    and no other film, sentence or side gives it. Where a sentence cannot be turned, the plain answer stands in.
    """
    rng, samples = np.random.default_rng(0), []
    for i, text in enumerate(["upper left lung", "upper right lung", CANNOT_TURN] * 6):  # 18, more than are asked at once
        film, drawn = rng.integers(0, 255, (8, 8), np.uint8), rng.random((8, 8)) < 0.5
        Image.fromarray(film).save(tmp_path / f"f{i}.png")
        Image.fromarray(drawn).save(tmp_path / f"m{i}.png")
        samples.append(asked(text, i, image=tmp_path / f"f{i}.png", mask=tmp_path / f"m{i}.png"))

    def paint(image_B3HW, texts):
        halves = torch.stack([RIGHT_HALF if "right" in text else LEFT_HALF for text in texts])
        return image_B3HW[:, :1] + halves[:, None, None]

    given, fit = [], fitting.fit
    monkeypatch.setattr(fitting, "fit", lambda *lists: given.append(lists) or fit(*lists))
    for flips in (False, True):
        fit_decision(Painter(paint), samples, 8, lambda sample: sample.text, lambda n, of: None, flips)
    (logits, masks, none), (again, same, mirrored) = given
    assert none is None and len(mirrored) == len(logits) == 18
    films = [np.asarray(Image.open(sample.image), np.float32) / 255 for sample in samples]
    halves = [(RIGHT_HALF if "right" in sample.text else LEFT_HALF).numpy() for sample in samples]
    for i, (film, half) in enumerate(zip(films, halves, strict=True)):
        assert np.array_equal(logits[i], (film + half).astype(np.float16)) and np.array_equal(again[i], logits[i])
        assert np.array_equal(mirrored[i], logits[i]), samples[i].text
        assert np.array_equal(masks[i], np.asarray(Image.open(samples[i].mask))) and np.array_equal(same[i], masks[i])


def test_without_dev_the_cut_stays_at_half():
    assert fit_decision(None, [], 32, lambda s: s.text, lambda n, of: None) == (Decision(), {})
