"""Building blocks shared by the models. All norms are GroupNorm or LayerNorm, so batch size never changes an answer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..losses import coarse_target

START = 2.0  # amplitude of a position embedding at the start
SCORES = 2**18  # scores of a head, N x L, that attention may keep for its backward


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with at most 8 groups that divide `channels`."""
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def conv_block(c_in: int, c_out: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, GroupNorm, ReLU."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False), group_norm(c_out), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a skip (He et al. 2016), GroupNorm in place of BatchNorm."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_block(c_in, c_out, stride),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
            group_norm(c_out),
        )
        same = stride == 1 and c_in == c_out
        self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), group_norm(c_out))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, c_in, H, W) to (B, c_out, H / stride, W / stride), rounded up."""
        return F.relu(self.body(x_BCHW) + self.skip(x_BCHW))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map, eps as ConvNeXt has it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The map with every place normalised on its own."""
        normed: Tensor = super().forward(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return normed


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, an MLP on every place, and a skip (Liu et al. 2022). The scale of the branch starts at 0.1, not at 1e-6:
    that is for deep nets and long schedules.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        branch: Tensor = self.scale * self.mlp(self.norm(self.depthwise(x_BCHW).permute(0, 2, 3, 1)))
        return x_BCHW + branch.permute(0, 3, 1, 2)


class PositionMap(nn.Module):
    """A learnt 2-D position embedding on a 14 x 14 grid, interpolated to any size: text names zones, so maps must know where they are.

    It starts as waves of the size of the maps. From small noise a model first learns what does not depend on the side, and only after
    tens of thousands of films that "left" is a place.
    """

    def __init__(self, channels: int, grid: int = 14) -> None:
        super().__init__()
        self.grid_1Chw = nn.Parameter(START * waves(channels, grid))

    def forward(self, size: tuple[int, int]) -> Tensor:
        """The embedding (1, channels, h, w) at the asked size."""
        return resize(self.grid_1Chw, size)


def waves(channels: int, grid: int) -> Tensor:
    """(1, channels, grid, grid) in [-1, 1]: sines and cosines of half, one, two and four periods, of the row in the first half of the
    channels and of the column in the others.
    """
    place_G = (torch.arange(grid) + 0.5) / grid - 0.5

    def along(n: int) -> Tensor:
        number_N = torch.arange(n)
        periods_N = 0.5 * 2.0 ** (number_N // 2 % 4)
        return torch.sin(2 * math.pi * periods_N[:, None] * place_G + (number_N % 2)[:, None] * math.pi / 2)

    rows, columns = along(channels // 2)[:, :, None], along(channels - channels // 2)[:, None, :]
    return torch.cat([rows.expand(-1, -1, grid), columns.expand(-1, grid, -1)])[None]


def attend(query: Tensor, key: Tensor, value: Tensor, mask_BL: Tensor | None = None) -> Tensor:
    """Attention of queries (B, heads, N, C) over keys and values (B, heads, L, C), where `mask_BL` is True.

    Torch's fused kernel keeps no N x L scores, but on a CPU its backward is slow: written out, a training step of `tgcnet_qata_small` at
    112 px takes 11 % less time.
    """
    mask = None if mask_BL is None else mask_BL[:, None, None]
    if query.device.type != "cpu" or not torch.is_grad_enabled() or query.shape[2] * key.shape[2] > SCORES:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    mixed: Tensor = scores.softmax(3).to(value.dtype) @ value
    return mixed


class CrossAttention(nn.Module):
    """Multi-head attention of queries (B, N, c_query) over a context (B, L, c_context), through a bottleneck `width`."""

    def __init__(self, c_query: int, c_context: int, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(c_query, width)
        self.key_value = nn.Linear(c_context, 2 * width)
        self.out = nn.Linear(width, c_query)

    def forward(self, x_BNC: Tensor, context_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """`mask_BL` is True where the context is real; every row needs at least one."""

        def split(t: Tensor) -> Tensor:  # (B, N, C) -> (B, heads, N, C / heads)
            return t.reshape(*t.shape[:2], self.heads, -1).transpose(1, 2)

        key, value = self.key_value(context_BLD).chunk(2, dim=-1)
        mixed = attend(split(self.query(x_BNC)), split(key), split(value), mask_BL)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Attention(nn.Module):
    """Multi-head attention of one width (Vaswani et al. 2017) whose keys need not be the values, as where only keys have positions.

    Keys have no bias: it would add the same to every score of a query, which softmax does not see.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, query_BNC: Tensor, key_BLC: Tensor, value_BLC: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """(B, N, C). `mask_BL` is True where a key is real; every row needs at least one."""
        q, k, v = (
            t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (self.query(query_BNC), self.key(key_BLC), self.value(value_BLC))
        )
        mixed = attend(q, k, v, mask_BL)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP (Vaswani et al. 2017; Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))

    def forward(self, x_BNC: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """`mask_BN` is True where a token is real."""
        q, k, v = self.query_key_value(self.norm_attention(x_BNC)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = attend(q, k, v, mask_BN)
        x_BNC = x_BNC + self.attention_out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x_BNC + self.mlp(self.norm_mlp(x_BNC))
        return out

    def value_path(self, x_BNC: Tensor) -> Tensor:
        """The block with attention replaced by its own values: each token keeps to its place (Zhou et al. 2022, MaskCLIP)."""
        value = self.query_key_value(self.norm_attention(x_BNC)).chunk(3, dim=-1)[2]
        out: Tensor = self.attention_out(value)
        return out


class SubpixelHead(nn.Module):
    """Logits at 1 / `scale` of a map's stride: channels become pixels (Shi et al. 2016), averaged over one old pixel against checkers."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.spread = nn.Conv2d(width, width // 4 * scale**2, 3, padding=1)
        self.head = nn.Conv2d(width // 4, 1, 1)

    def forward(self, map_BChw: Tensor) -> Tensor:
        """(B, 1, scale h, scale w)."""
        x = F.pixel_shuffle(self.spread(map_BChw), self.scale)
        x = F.avg_pool2d(F.pad(x, (self.scale - 1, 0, self.scale - 1, 0)), self.scale, stride=1)
        logits: Tensor = self.head(x)
        return logits


def resize(x_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, by target size and never by factor, so that odd sizes meet."""
    if x_BCHW.shape[-2:] == tuple(size):
        return x_BCHW
    return F.interpolate(x_BCHW, size=size, mode="bilinear", align_corners=False)


def cut(x_BCHW: Tensor, finer_BCHW: Tensor) -> Tensor:
    """What was lifted, cut to the next finer map of a pyramid: where that has an odd side, the last coarse cell lies half beyond."""
    return x_BCHW[..., : finer_BCHW.shape[2], : finer_BCHW.shape[3]]


def lift(x_BCHW: Tensor, finer_BCHW: Tensor) -> Tensor:
    """Bilinear, twice as large, then `cut`."""
    return cut(resize(x_BCHW, (2 * x_BCHW.shape[2], 2 * x_BCHW.shape[3])), finer_BCHW)


def pad_to_multiple(image_BCHW: Tensor, multiple: int) -> Tensor:
    """Pad right and below to a multiple of `multiple`: reflection, or replication where the image is smaller than the pad."""
    height, width = image_BCHW.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom == right == 0:
        return image_BCHW
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(image_BCHW, (0, right, 0, bottom), mode=mode)


def pad_to(x_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Zeros right and below, in fp32: a mask, or the pixels that are valid, on the grid of a padded image."""
    return F.pad(x_BCHW.float(), (0, size[1] - x_BCHW.shape[3], 0, size[0] - x_BCHW.shape[2]))


def cells_of(mask_B1HW: Tensor, valid_B1HW: Tensor, map_BDhw: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Of each cell of a map at that stride the share that the mask covers of its valid part, and how much of it is valid, (B, 1, h, w);
    what of the last cells lies beyond the film is not.
    """
    size = (map_BDhw.shape[2], map_BDhw.shape[3])
    whole = (stride * size[0], stride * size[1])
    return coarse_target(pad_to(mask_B1HW, whole), pad_to(valid_B1HW, whole), size)


class PresenceHead(nn.Module):
    """Whether the target is there: two layers on [pooled F ; q], where F has met the text and q is the sentence.

    The mean over places says what the film is like, the maximum keeps one small lesion that the mean would drown.
    """

    def __init__(self, width: int, joint: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * width + joint, width), nn.ReLU(inplace=True), nn.Linear(width, 1))

    def forward(self, map_BdHW: Tensor, query_BD: Tensor) -> Tensor:
        """Logits (B,), fp32."""
        places = map_BdHW.flatten(2).float()
        logits_B: Tensor = self.layers(torch.cat([places.mean(2), places.amax(2), query_BD.float()], dim=1))[:, 0]
        return logits_B.float()
