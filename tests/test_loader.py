"""Batches: every film, flip and dropped sentence of step k is a function of (seed, step, index) and of nothing else."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from reportseg.config import RunConfig, parse_config
from reportseg.data.cache import FilmCache
from reportseg.data.loader import Batch, Steps, batches, prepare_image
from reportseg.io import image_from_array
from reportseg.text import CONSTANT
from reportseg.types import Sample

CPU = torch.device("cpu")
LEFT, RIGHT = "upper left lung", "upper right lung"


def config(*, data=None, train=None, seed=0) -> RunConfig:
    data = {"size_px": 16, "text_dropout": 0} | (data or {})
    train = {"images": 40, "batch": 8} | (train or {})
    return parse_config({"name": "t", "seed": seed, "data": data, "train": train, "model": {"name": "tgcnet", "preset": "tiny"}}, "t")


def steps(n=10, *, texts=None, flip_safe=True, channels=1, size=16, targets=None, **sections) -> Steps:
    """Ten films of which film i has the gray value 20 + 4 i; the left half is masked."""
    texts = texts or [LEFT] * n
    samples = [Sample(id=f"f{i}", image=Path("x"), mask=Path("x"), text=text, flip_safe=flip_safe) for i, text in enumerate(texts)]
    images = np.zeros((n, channels, size, size), np.uint8) + (20 + 4 * np.arange(n, dtype=np.uint8))[:, None, None, None]
    masks = np.zeros((n, size, size), np.uint8)
    masks[:, :, : size // 2] = 1
    return Steps(samples, FilmCache(images, masks, targets), config(**sections))


def ids(made: Steps) -> list[str]:
    return [i for k in range(len(made)) for i in made[k].ids]


def same(a: Batch, b: Batch) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(Batch)]
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


# ---------------------------------------------------------------- what a batch is


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch(channels):
    batch = next(batches(steps(channels=channels), 0, CPU))
    assert batch.image_B3HW.shape == (8, 3, 16, 16) and batch.image_B3HW.dtype == torch.float32
    assert batch.mask_B1HW.shape == (8, 1, 16, 16) and batch.mask_B1HW.dtype == torch.bool
    assert batch.valid_BHW.shape == (8, 16, 16) and batch.valid_BHW.dtype == torch.bool
    assert len(batch.texts) == len(batch.ids) == 8
    assert batch.image_B3HW.min() >= 0 and batch.image_B3HW.max() <= 1


def test_without_augmentation_it_is_the_cache():
    for batch in batches(steps(data={"augment": None}), 0, CPU):
        for image, mask, valid, name in zip(batch.image_B3HW, batch.mask_B1HW, batch.valid_BHW, batch.ids, strict=True):
            assert torch.equal(image, torch.full((3, 16, 16), (20 + 4 * int(name[1:])) / 255))
            assert mask[0, :, :8].all() and not mask[0, :, 8:].any()
            assert valid.all()


def test_a_batch_moves_to_a_device_whole():
    batch = next(batches(steps(targets=np.zeros((10, 16, 16), np.uint8)), 0, CPU)).to(torch.device("meta"))
    assert {t.device.type for t in (batch.image_B3HW, batch.mask_B1HW, batch.valid_BHW, batch.target_B1HW)} == {"meta"}
    assert batch.ids and batch.texts


def test_a_teachers_target_is_turned_with_its_film():
    soft = np.zeros((10, 16, 16), np.uint8)
    soft[:, :, :8] = 102
    for batch in batches(steps(targets=soft), 0, CPU):
        target = batch.target_B1HW
        assert target.max() == pytest.approx(0.4, abs=1e-6)
        assert (target[batch.mask_B1HW] > 0.2 - 1e-5).all() and (target[~batch.mask_B1HW] < 0.2 + 1e-5).all()  # half of 0.4
        assert not target[:, 0][~batch.valid_BHW].any()
    assert next(batches(steps(), 0, CPU)).target_B1HW is None


# ---------------------------------------------------------------- order


def test_every_epoch_is_a_permutation_of_all_films():
    order = ids(steps(train={"images": 40, "batch": 8}))
    epochs = [order[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(e) == sorted(f"f{i}" for i in range(10)) for e in epochs)
    assert len({tuple(e) for e in epochs}) == 4


def test_a_batch_may_cross_epochs_and_be_larger_than_the_set():
    order = ids(steps(3, train={"images": 21, "batch": 8}))
    assert len(order) == 21
    assert all(sorted(order[i : i + 3]) == ["f0", "f1", "f2"] for i in range(0, 21, 3))


def test_the_order_does_not_depend_on_the_batch_size():
    assert ids(steps(train={"batch": 8})) == ids(steps(train={"batch": 5})) == ids(steps(train={"batch": 40}))


def test_the_last_batch_holds_what_is_left():
    made = steps(train={"images": 21, "batch": 8})
    assert [len(made[k].ids) for k in range(len(made))] == [8, 8, 5]
    assert [len(b.ids) for b in batches(made, 0, CPU)] == [8, 8, 5]


def test_another_seed_is_another_order():
    assert ids(steps(seed=1)) != ids(steps(seed=2))


# ---------------------------------------------------------------- the same, always


def test_zero_and_four_workers_give_the_same_batches():
    made = steps(data={"text_dropout": 0.3}, train={"images": 52})
    alone, four = list(batches(made, 0, CPU)), list(batches(made, 0, CPU, workers=4))
    assert len(alone) == len(four) == 7
    assert all(same(a, b) for a, b in zip(alone, four, strict=True))


def test_a_resume_at_step_k_sees_what_the_run_would_have_seen():
    made = steps(data={"text_dropout": 0.3})
    whole = list(batches(made, 0, CPU))
    torch.manual_seed(99)
    assert all(same(a, b) for a, b in zip(whole[3:], batches(made, 3, CPU), strict=True))
    assert list(batches(made, len(made), CPU)) == []


def test_no_draw_depends_on_global_random_state_or_on_what_was_read_before():
    one, other = steps(data={"text_dropout": 0.3}), steps(data={"text_dropout": 0.3})
    torch.manual_seed(1)
    np.random.seed(1)
    first = one[4]
    torch.manual_seed(2)
    np.random.seed(2)
    other[0], other[2]
    again = other[4]
    assert first.params == again.params and first.texts == again.texts and first.ids == again.ids
    assert same(first.finish(CPU), again.finish(CPU))


def test_reading_batches_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for workers in (0, 2):
        list(batches(steps(), 0, CPU, workers=workers))
        assert torch.equal(before, torch.get_rng_state())


def test_draws_differ_between_steps_places_and_seeds():
    made = steps(train={"images": 80})
    drawn = [p for k in range(10) for p in made[k].params]
    assert len({(p.angle, p.zoom, p.noise_seed) for p in drawn}) == 80
    assert made[0].params != steps(seed=1)[0].params


def test_the_twin_sees_the_same_films_turned_the_same_way():
    model, twin = steps(data={"text_dropout": 0.3}), steps(data={"text_dropout": 0.3, "text": "constant"})
    for k in range(len(model)):
        assert model[k].ids == twin[k].ids and model[k].params == twin[k].params


# ---------------------------------------------------------------- text


def flips(made: Steps) -> list[tuple[bool, str]]:
    return [(p.flip, t) for k in range(len(made)) for p, t in zip(made[k].params, made[k].texts, strict=True)]


def test_a_mirrored_film_gets_the_other_side_word():
    seen = flips(steps(train={"images": 200}))
    assert {flip for flip, _ in seen} == {True, False}
    assert all(text == (RIGHT if flip else LEFT) for flip, text in seen)


def test_the_mask_is_mirrored_with_the_film():
    augment = {"flip": True, "rotate_deg": 0, "scale": 0, "shift": 0, "intensity": 0}
    for batch in batches(steps(data={"augment": augment}, train={"images": 80}), 0, CPU):
        for mask, text in zip(batch.mask_B1HW[:, 0], batch.texts, strict=True):
            left, right = mask[:, :8].all(), mask[:, 8:].all()
            assert (left, right) == ((True, False) if text == LEFT else (False, True))


@pytest.mark.parametrize("change", [{"flip_safe": False}, {"texts": ["opacity lt lung"] * 10}])
def test_a_film_that_is_not_flip_safe_or_has_an_unknown_side_word_is_never_mirrored(change):
    made = steps(train={"images": 200}, **change)
    text = change.get("texts", [LEFT])[0]
    assert set(flips(made)) == {(False, text)}


def test_a_sentence_without_sides_stays_as_it_is():
    assert {t for _, t in flips(steps(texts=["bilateral opacities"] * 10, train={"images": 100}))} == {"bilateral opacities"}


def test_sentences_are_dropped_at_the_rate_that_was_asked_and_the_film_stays():
    plain, dropping = steps(train={"images": 1000}), steps(data={"text_dropout": 0.25}, train={"images": 1000})
    rate = np.mean([t == "" for _, t in flips(dropping)])
    assert abs(rate - 0.25) < 0.05
    for k in range(0, len(plain), 10):
        assert plain[k].params == dropping[k].params
        assert all(b in ("", a) for a, b in zip(plain[k].texts, dropping[k].texts, strict=True))


def test_the_text_free_twin_reads_one_word():
    made = steps(texts=["", "no side", LEFT, *[RIGHT] * 7], data={"text": "constant", "text_dropout": 0.5})
    assert {t for k in range(len(made)) for t in made[k].texts} == {CONSTANT}


# ---------------------------------------------------------------- sizes


def test_the_size_follows_the_share_of_images_seen():
    made = steps(data={"size_px": [[0.5, 16], [0.9, 24], [1.0, 32]]}, train={"images": 80, "batch": 8})
    assert [made[k].size for k in range(10)] == [16] * 5 + [24] * 4 + [32]
    assert [b.image_B3HW.shape[-1] for b in batches(made, 0, CPU)] == [16] * 5 + [24] * 4 + [32]


def test_one_size_is_for_all():
    assert {steps()[k].size for k in range(5)} == {16}


def test_the_size_moves_no_draw():
    small, large = steps(), steps(data={"size_px": 32})
    assert all(small[k].params == large[k].params and small[k].ids == large[k].ids for k in range(5))


# ---------------------------------------------------------------- one film, as every model takes it


def test_prepare_image_keeps_a_film_of_the_right_size():
    gray = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    film = prepare_image(image_from_array(gray), 16)
    assert film.shape == (3, 16, 16) and film.dtype == torch.float32
    for channel in film:
        np.testing.assert_array_equal(channel, np.divide(gray, 255, dtype=np.float32))


@pytest.mark.parametrize("shape", [(1, 1), (40, 7), (5, 64), (33, 33, 3)])
def test_prepare_image_stretches_any_film_to_the_square(shape):
    film = prepare_image(image_from_array(np.random.default_rng(0).random(shape, np.float32)), 16)
    assert film.shape == (3, 16, 16)
    assert film.min() >= 0 and film.max() <= 1


def test_prepare_image_averages_before_it_shrinks():
    stripes = np.zeros((64, 64), np.float32)
    stripes[:, ::2] = 1
    film = prepare_image(image_from_array(stripes), 16)
    assert (film[:, 2:-2, 2:-2] - 0.5).abs().max() < 0.02


def test_prepare_image_keeps_colour_in_order():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert prepare_image(image_from_array(red), 4).mean((1, 2)).tolist() == [1, 0, 0]
