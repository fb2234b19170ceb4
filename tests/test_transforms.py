"""Augmentation: drawn apart from being applied, and film, mask and extent move together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reportseg.config import Augment
from reportseg.data.transforms import IDENTITY, Params, augment, draw, generator, matrices, shade, warp

DRAWN = [draw(Augment(), generator(0, 9, i), True) for i in range(2000)]


def film(*, size=32, channels=1, films=1, seed=0):
    """Smooth films, so that resampling them costs little."""
    noise = torch.rand(films, channels, size // 4 + 1, size // 4 + 1, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic", align_corners=True).clamp(0, 1)


def block(size=32, rows=(4, 12), columns=(18, 28)):
    mask = torch.zeros(1, 1, size, size, dtype=torch.bool)
    mask[..., slice(*rows), slice(*columns)] = True
    return mask


def centre(x_11HW):
    """(x, y) of the centre of mass, in pixels from the middle of the square."""
    h, w = x_11HW.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij")
    weight = x_11HW[0, 0].float()
    return float((weight * x).sum() / weight.sum()), float((weight * y).sum() / weight.sum())


# ---------------------------------------------------------------- drawing


def test_a_stream_depends_on_the_seed_and_the_place_alone():
    first = generator(3, 2, 5).random(4)
    np.testing.assert_array_equal(first, generator(3, 2, 5).random(4))
    for other in (generator(4, 2, 5), generator(3, 1, 5), generator(3, 2, 6), generator(3, 5, 2)):
        assert not np.array_equal(first, other.random(4))


def test_parameters_are_plain_numbers_that_a_second_drawing_repeats():
    one = draw(Augment(), generator(0, 1), True)
    assert one == draw(Augment(), generator(0, 1), True)
    assert all(type(v) in (bool, int, float, tuple) for v in vars(one).values())


def test_parameters_stay_in_their_ranges_and_fill_them():
    column = lambda name: np.array([getattr(p, name) for p in DRAWN])  # noqa: E731
    for name, low, high in [
        ("angle", -20, 20),
        ("zoom", 0.7, 1 / 0.7),
        ("shift", -0.08, 0.08),
        ("gamma", math.exp(-0.36), math.exp(0.36)),
        ("contrast", 0.7, 1.3),
        ("brightness", -0.15, 0.15),
        ("sharpness", -1, 0.5),
        ("noise", 0, 0.06),
    ]:
        values = column(name)
        assert low - 1e-9 <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high + 1e-9
    assert abs(column("flip").mean() - 0.5) < 0.05
    for name in ("sharpness", "noise"):  # three films in ten
        assert abs((column(name) != 0).mean() - 0.3) < 0.05


def test_zooming_in_is_as_frequent_as_zooming_out():
    assert abs(np.mean([p.zoom > 1 for p in DRAWN]) - 0.5) < 0.05


@pytest.mark.parametrize("intensity", [0.0, 0.9])
def test_sharpness_stays_in_its_range_at_any_intensity(intensity):
    drawn = [draw(Augment(intensity=intensity), generator(0, 9, i), True) for i in range(300)]
    assert all(-1 <= p.sharpness <= 0.5 for p in drawn)


def test_one_switch_does_not_move_the_others():
    base = vars(draw(Augment(), generator(0, 7), True))
    for change, moved in [
        ({"flip": False}, {"flip"}),
        ({"rotate_deg": 5}, {"angle"}),
        ({"scale": 0.1}, {"zoom"}),
        ({"shift": 0.3}, {"shift"}),
        ({"intensity": 0.1}, {"gamma", "contrast", "brightness", "sharpness", "noise"}),
    ]:
        other = vars(draw(Augment(**change), generator(0, 7), True))
        assert {k for k in base if base[k] != other[k]} <= moved


def test_a_film_that_may_not_be_mirrored_never_is_and_draws_the_rest_alike():
    for i in range(50):
        free, kept = draw(Augment(), generator(0, i), True), draw(Augment(), generator(0, i), False)
        assert not kept.flip
        assert vars(free) | {"flip": False} == vars(kept)


def test_no_augmentation_is_the_identity_and_uses_the_stream_alike():
    one, other = generator(0, 1), generator(0, 1)
    assert draw(None, one, True) == IDENTITY
    draw(Augment(), other, True)
    assert one.random() == other.random()


# ---------------------------------------------------------------- moving


def test_matrices_of_a_known_rotation():
    theta = matrices([Params(angle=90), Params(angle=30, zoom=2, shift=(0.1, -0.2)), Params(flip=True, angle=30, shift=(0.1, -0.2))])
    np.testing.assert_allclose(theta[0], [[0, -1, 0], [1, 0, 0]], atol=1e-6)
    c, s = math.sqrt(3) / 2, 0.5
    np.testing.assert_allclose(theta[1], [[c / 2, -s / 2, 0.2], [s / 2, c / 2, -0.4]], atol=1e-6)
    np.testing.assert_allclose(theta[2], [[-c, s, -0.2], [s, c, -0.4]], atol=1e-6)


def test_a_positive_angle_turns_counter_clockwise():
    image = film()
    torch.testing.assert_close(warp(image, [Params(angle=90)], 32), torch.rot90(image, 1, (2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(warp(image, [Params(angle=-90)], 32), torch.rot90(image, -1, (2, 3)), atol=1e-5, rtol=0)


def test_a_rotation_by_30_degrees_moves_a_point_where_trigonometry_says():
    x, y = centre(block().float())
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    turned = centre(warp(block().float(), [Params(angle=30)], 32))
    np.testing.assert_allclose(turned, (c * x + s * y, c * y - s * x), atol=0.1)  # y points down


def test_zoom_above_one_enlarges():
    near, far = warp(block().float(), [Params(zoom=1.25)], 32), warp(block().float(), [Params(zoom=0.8)], 32)
    area = float(block().sum())
    assert abs(float(near.sum()) / area - 1.25**2) < 0.05
    assert abs(float(far.sum()) / area - 0.8**2) < 0.05
    np.testing.assert_allclose(centre(near), np.multiply(1.25, centre(block())), atol=0.1)


def test_a_shift_is_a_share_of_the_side():
    image = film()
    moved = warp(image, [Params(shift=(0.25, -0.125))], 32)
    torch.testing.assert_close(moved[..., 4:, :24], image[..., :-4, 8:], atol=1e-5, rtol=0)
    assert not moved[..., :4, :].any()
    assert not moved[..., 24:].any()


def test_a_flip_mirrors_and_two_flips_are_none():
    image = film(channels=3)
    once = warp(image, [Params(flip=True)], 32)
    torch.testing.assert_close(once, image.flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(warp(once, [Params(flip=True)], 32), image, atol=1e-5, rtol=0)


def test_angle_and_shift_mean_the_same_on_a_mirrored_film():
    move = {"angle": 17.0, "zoom": 1.2, "shift": (0.05, 0.1)}
    image = film()
    torch.testing.assert_close(warp(image, [Params(flip=True, **move)], 32), warp(image.flip(-1), [Params(**move)], 32), atol=1e-5, rtol=0)


def test_the_identity_returns_the_film_itself():
    image = film(films=2, channels=3)
    assert torch.equal(warp(image, [IDENTITY, IDENTITY], 32), image)
    out, mask, valid = augment(image, block().expand(2, -1, -1, -1), [IDENTITY, IDENTITY], 32)
    assert torch.equal(out, image)
    assert torch.equal(mask, block().expand(2, -1, -1, -1))
    assert valid.all()


def test_shrinking_averages_areas():
    image = film(size=64)
    torch.testing.assert_close(warp(image, [IDENTITY], 32), image.unflatten(3, (32, 2)).mean(4).unflatten(2, (32, 2)).mean(3))


def test_any_size_comes_out():
    image, mask = film(films=2, channels=3), block().expand(2, -1, -1, -1)
    for size in (16, 24, 48):
        for params in ([IDENTITY] * 2, DRAWN[:2]):
            out, inside, valid = augment(image, mask, params, size)
            assert out.shape == (2, 3, size, size)
            assert inside.shape == valid.shape == (2, 1, size, size)
            assert (out.dtype, inside.dtype, valid.dtype) == (torch.float32, torch.bool, torch.bool)


def test_films_of_one_batch_do_not_touch_each_other():
    image, mask = film(films=3), torch.cat([block(), block(rows=(0, 32)), block(columns=(0, 5))])
    together = augment(image, mask, DRAWN[:3], 24)
    for i in range(3):
        alone = augment(image[i : i + 1], mask[i : i + 1], DRAWN[i : i + 1], 24)
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[i : i + 1], part, atol=1e-6, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.booleans(), st.floats(-45, 45), st.floats(0.6, 1.6), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_film_mask_and_extent_move_together(flip, angle, zoom, dx, dy):
    params = [Params(flip=flip, angle=angle, zoom=zoom, shift=(dx, dy))]
    mask = block()
    image, moved, valid = augment(mask.float(), mask, params, 32)
    sure = (image - 0.5).abs() > 1e-3  # shading floors gray values at 1e-4
    assert torch.equal((image > 0.5) & sure, moved & sure)
    assert not (moved & ~valid).any()  # nothing is masked outside the film
    assert not image[~valid].any()  # and nothing is to be seen there


def test_valid_is_the_part_of_the_square_that_the_film_covers():
    _, _, valid = augment(film(), block(), [Params(zoom=0.5)], 32)
    expected = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    expected[..., 8:24, 8:24] = True
    assert torch.equal(valid, expected)
    _, _, valid = augment(film(), block(), [Params(zoom=1.5)], 32)
    assert valid.all()


def test_a_mask_pixel_is_kept_where_half_of_it_or_more_was_inside():
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 0:2, 0] = True  # half of the first pixel
    mask[..., 3, 3] = True  # a quarter of the last
    _, small, _ = augment(torch.zeros(1, 1, 4, 4), mask, [IDENTITY], 2)
    assert small[0, 0].tolist() == [[True, False], [False, False]]


# ---------------------------------------------------------------- shading


def test_shading_stays_between_black_and_white():
    image = film(films=64, channels=3, size=16)
    for factor in (0, 1):
        out = shade(image * 0 + factor, DRAWN[:64])
        assert out.min() >= 0 and out.max() <= 1
    out = shade(image, [draw(Augment(intensity=0.99), generator(0, i), True) for i in range(64)])
    assert out.min() >= 0 and out.max() <= 1
    assert torch.isfinite(out).all()


def test_each_knob_of_shading():
    image = film() * 0.5 + 0.25
    torch.testing.assert_close(shade(image, [IDENTITY]), image)
    torch.testing.assert_close(shade(image, [Params(gamma=2)]), image**2)
    torch.testing.assert_close(shade(image, [Params(brightness=0.1)]), image + 0.1)
    flat = shade(image, [Params(contrast=0.5)])
    torch.testing.assert_close(flat.mean(), image.mean())
    torch.testing.assert_close(flat.std(), image.std() / 2)
    noisy = shade(image, [Params(noise=0.05, noise_seed=1)])
    assert abs(float((noisy - image).std()) - 0.05) < 0.005
    assert torch.equal(noisy, shade(image, [Params(noise=0.05, noise_seed=1)]))
    assert not torch.equal(noisy, shade(image, [Params(noise=0.05, noise_seed=2)]))


def test_sharpness_blurs_below_zero_and_sharpens_above():
    image = film() * 0.5 + 0.25
    roughness = lambda x: float((x[..., 1:] - x[..., :-1]).abs().mean())  # noqa: E731
    soft, sharp = shade(image, [Params(sharpness=-1)]), shade(image, [Params(sharpness=0.5)])
    assert roughness(soft) < roughness(image) < roughness(sharp)
    edge = torch.zeros(1, 1, 3, 3)
    edge[..., 1, 1] = 0.9
    assert shade(edge, [Params(sharpness=-1)])[0, 0, 1, 1] == pytest.approx(0.1, abs=1e-3)  # the mean of nine


def test_noise_of_a_gray_film_is_gray():
    gray = film().expand(-1, 3, -1, -1)
    out = shade(gray, [Params(noise=0.05, noise_seed=3)])
    assert torch.equal(out[:, 0], out[:, 1]) and torch.equal(out[:, 0], out[:, 2])


def test_shading_leaves_its_input_alone():
    image = film(films=2)
    before = image.clone()
    shade(image, [Params(sharpness=0.5, noise=0.1), Params(gamma=2)])
    assert torch.equal(image, before)


def test_shading_does_not_touch_the_mask():
    plain = augment(film(), block(), [Params(angle=10)], 32)
    shaded = augment(film(), block(), [Params(angle=10, gamma=1.4, contrast=0.7, brightness=0.2, sharpness=-0.5, noise=0.05)], 32)
    assert torch.equal(plain[1], shaded[1]) and torch.equal(plain[2], shaded[2])
    assert not torch.equal(plain[0], shaded[0])
