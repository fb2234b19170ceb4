"""U-Net as published, but for padding and norms. What it shares with every model is in test_models_contract.py."""

from __future__ import annotations

import pytest
import torch

from reportseg.errors import InputError
from reportseg.models import build, count_parameters
from reportseg.models.unet import UNet, UNetConfig


def test_the_widths_of_the_paper_count_31_million():
    assert count_parameters({"name": "unet"}) == {"total": 31_037_633, "trainable": 31_037_633, "frozen": 0}
    assert count_parameters({"name": "unet"})["total"] == pytest.approx(31_030_658, rel=1e-3), "the layers that the paper draws"
    with torch.device("meta"):
        model = UNet(UNetConfig())
    assert [block[-1][0].out_channels for block in model.down] == [64, 128, 256, 512, 1024]
    assert [block[0][0].in_channels for block in model.up] == [1024, 512, 256, 128]  # skip and lifted map side by side


def test_the_width_option_scales_every_level():
    assert count_parameters({"name": "unet", "width": 8})["total"] == sum(
        p.numel() for p in build({"name": "unet", "width": 8}).parameters()
    )
    assert count_parameters({"name": "unet", "width": 32})["total"] == pytest.approx(31_037_633 / 4, rel=0.01)
    for width in (3, 257, "wide"):
        with pytest.raises(InputError, match="width"):
            build({"name": "unet", "width": width})


def test_five_levels_halve_and_come_back():
    model, sizes = build({"name": "unet", "width": 4}), []
    for block in [*model.down, *model.up]:
        block.register_forward_hook(lambda m, i, out: sizes.append(out.shape[-1]))
    model(torch.rand(1, 3, 64, 64), [""])
    assert sizes == [64, 32, 16, 8, 4, 8, 16, 32, 64]


def test_skips_carry_the_detail():
    """With the deep path cut, the skip of the first level alone still tells two films apart."""
    model = build({"name": "unet", "width": 4})
    with torch.no_grad():
        model.lift[-1].weight.zero_()
    a, b = (model(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(s)), [""]).logits_B1HW for s in (0, 1))
    assert not torch.allclose(a, b)


def test_the_sentence_is_not_read_and_never_too_long():
    model = build({"name": "unet", "width": 4})
    text = model.encode_text(["a sentence", ""])
    assert text.tokens_BLD.shape[:2] == text.mask_BL.shape == (2, 0) and text.spans == ((), ())
    assert not model.truncates("word " * 10_000)


def test_a_coarser_output_leaves_out_the_finer_levels():
    image = torch.rand(1, 3, 64, 64)
    for stride, levels in ((1, 4), (2, 3), (4, 2)):
        model, sizes = build({"name": "unet", "width": 4, "output_stride": stride}), []
        model.head.register_forward_hook(lambda m, i, out, sizes=sizes: sizes.append(out.shape[-1]))
        assert model(image, [""]).logits_B1HW.shape[-1] == 64
        assert sizes == [64 // stride] and len(model.up) == levels


def test_the_size_of_the_cpu_bench_has_at_most_seven_million():
    assert 6_500_000 < count_parameters({"name": "unet", "width": 30})["total"] <= 7_000_000
