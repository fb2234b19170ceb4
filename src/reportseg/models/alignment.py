"""TMCA's target-sensitive semantic distance and multi-level contrastive alignment: what training needs and inference never sees.

Films are contrasted with *distinct sentences*, not with one another's, so it works at batch 1 and two films with one sentence are no
negatives. A table holds a vector and a mean mask for each. It is made of buffers: every checkpoint has it, and no bundle.

Shapes: N films with a sentence, U sentences, D joint width, G the 14 x 14 cells of a mean mask.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..losses import area_average
from ..text import can_swap, normalise, swap_sides
from .layers import PositionMap, cells_of

ROWS, GRID, REFRESH = 1024, 14, 50  # sentences in the table, cells a side of a mean mask, steps between two readings of all sentences
OVERLAP_SHARE = 0.5  # alpha: overlap of masks against closeness of words in the distance
SOFTNESS = 0.15
MARGIN, LEAST_BACKGROUND = 0.2, 0.01
TAU_RANGE, TAU_START = (0.02, 0.5), 0.07
WEIGHT, WARM_UP = 0.2, 0.1  # of the mean over levels; share of the run over which it rises
ENTROPY_ALARM, COSINE_ALARM = 0.9, 0.95

Encode = Callable[[list[str]], Tensor]


class Projector(nn.Module):
    """P_l: a map with its position embedding, into the joint space. In fp32: differences of cosines are small."""

    def __init__(self, width: int, joint: int) -> None:
        super().__init__()
        self.position = PositionMap(width)
        self.project = nn.Conv2d(width, joint, 1)

    def forward(self, map_BdHW: Tensor) -> Tensor:
        """(B, d, h, w) to (B, D, h, w)."""
        with torch.autocast(map_BdHW.device.type, enabled=False):
            out: Tensor = self.project(map_BdHW.float() + self.position((map_BdHW.shape[2], map_BdHW.shape[3])))
        return out


class Targets(NamedTuple):
    """Pooled vectors of one level, unit length: of the target v and of its background b, (N, D)."""

    v_ND: Tensor
    b_ND: Tensor


class Terms(NamedTuple):
    """Of one level, one value a film: image to text and text to image (films with a target), the margin (films with a background)."""

    to_text_N: Tensor
    to_image_N: Tensor
    margin_N: Tensor


class Alignment(nn.Module):
    """The table of sentences, one temperature a level, and projectors where the model has none of its own.

    `sentences` are all of the training's, in any order: with their side-swapped forms they fill the table where it is large enough. Else it
    is a queue: a sentence that it does not hold takes the oldest row.
    """

    key_U: Tensor
    vector_UD: Tensor
    mask_UG: Tensor
    count_U: Tensor
    next_row: Tensor
    step: Tensor

    def __init__(
        self, strides: Sequence[int], joint: int, soft_labels: bool, sentences: Sequence[str], projectors: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.strides, self.soft_labels = tuple(strides), soft_labels
        self.projectors = nn.ModuleList(projectors)
        low, high = TAU_RANGE
        start = (TAU_START - low) / (high - low)
        self.tau_logit = nn.Parameter(torch.full((len(self.strides),), math.log(start / (1 - start))))
        forms = {normalise(text): text for text in sentences if normalise(text)}
        forms |= {normalise(swap_sides(text)): swap_sides(text) for text in list(forms.values()) if can_swap(text)}
        self.sentences = sorted(forms) if len(forms) <= ROWS else []
        keys = [key_of(text) for text in self.sentences]
        self.register_buffer("key_U", torch.tensor(keys + [0] * (ROWS - len(keys)), dtype=torch.int64))
        self.register_buffer("vector_UD", torch.zeros(ROWS, joint))
        self.register_buffer("mask_UG", torch.zeros(ROWS, GRID * GRID))
        self.register_buffer("count_U", torch.zeros(ROWS, dtype=torch.int64))
        self.register_buffer("next_row", torch.tensor(len(keys) % ROWS))
        self.register_buffer("step", torch.tensor(0))

    @property
    def tau(self) -> Tensor:
        """Temperature of each level, within its range; as many as there are levels."""
        low, high = TAU_RANGE
        return low + (high - low) * self.tau_logit.sigmoid()

    def forward(
        self,
        compared: Sequence[Tensor],
        text_BD: Tensor,
        texts: Sequence[str],
        mask_B1HW: Tensor,
        valid_B1HW: Tensor,
        encode: Encode,
        progress: float,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses and figures of one batch; the table learns its vectors and masks. `compared` are the P_l F_l, (B, D, h, w) a level,
        `encode` gives sentence vectors (n, D) for the table; what is returned are scalars by name. Where several
        processes train, all see the films of all, of which each has equally many.
        """
        device = text_BD.device
        if int(self.step) % REFRESH == 0:
            self.refresh(encode)
        self.step += 1
        with torch.autocast(device.type, enabled=False):
            mask, valid = mask_B1HW.float(), valid_B1HW.float()
            grid = gather(area_average(mask * valid, (GRID, GRID)).flatten(1))
            total = valid.flatten(1).sum(1).clamp(min=1)
            background = gather(((1 - mask) * valid).flatten(1).sum(1) / total)
            keys = gather(torch.tensor([key_of(text) for text in texts], device=device))
            t = F.normalize(gather(text_BD.float()), dim=1)
            pooled = [Targets(*map(gather, pool(z.float(), mask, valid, s))) for z, s in zip(compared, self.strides, strict=True)]
            nothing = t.sum() * 0 + sum(z.float().sum() for z in compared) * 0 + self.tau.sum() * 0

            asked = keys != 0
            target = gather((mask * valid >= 0.5).flatten(1).any(1))  # a teacher's doubt is no target
            contrast, margins = asked & target, asked & (background >= LEAST_BACKGROUND)
            losses = {f"align_{stride}": nothing for stride in self.strides}
            figures: dict[str, Tensor] = {}
            if not asked.any():
                return losses, figures
            table_UD, row_N = self.read(keys[asked], t[asked])
            own_N = torch.zeros_like(keys).masked_scatter(asked, row_N)
            q_NU, soft_NU = self.labels(grid[contrast], own_N[contrast], table_UD.detach())
            if self.soft_labels and len(soft_NU) and soft_NU.shape[1] > 1:
                figures["soft_entropy"] = -torch.xlogy(soft_NU, soft_NU).sum(1).mean() / math.log(soft_NU.shape[1])
            for level, (stride, p) in enumerate(zip(self.strides, pooled, strict=True)):
                terms = self.terms(level, p, t, table_UD, q_NU, own_N, contrast, margins)
                to_text, to_image, margin = (term.mean() if len(term) else nothing for term in terms)
                loss = (to_text + to_image) / 2 + margin
                losses[f"align_{stride}"] = nothing + min(1.0, progress / WARM_UP) * WEIGHT / len(self.strides) * loss
                figures |= {f"{name}_{stride}": value for name, value in self.figures(p, t, own_N, contrast, margins).items()}
                if contrast.any():
                    figures[f"contrast_{stride}"] = ((to_text + to_image) / 2).detach()
            self.learn(grid[contrast], own_N[contrast])
        return losses, figures

    # ---------------------------------------------------------------- the table

    @torch.no_grad()
    def refresh(self, encode: Encode) -> None:
        """Read every known sentence again with the weights of now. To be called after the batch's own were read: autocast keeps the weights
        that it has cast, and those cast here would carry no gradient.
        """
        for i in range(0, len(self.sentences), 128):
            part = self.sentences[i : i + 128]
            fresh = F.normalize(encode(part).float(), dim=1)
            keys = torch.tensor([key_of(text) for text in part], device=fresh.device)
            still = self.key_U[i : i + len(part)] == keys  # a full table gives rows away
            self.vector_UD[i : i + len(part)] = torch.where(still[:, None], fresh, self.vector_UD[i : i + len(part)])

    def read(self, keys_N: Tensor, t_ND: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of all known sentences (U, D), those of the batch with their gradient, and the row of each film's own in it (N); from
        their keys (N) and vectors (N, D).
        """
        own_N = self.rows(keys_N)
        rows_R, place_N = torch.unique(own_N, return_inverse=True)
        member_RN = F.one_hot(place_N, len(rows_R)).T.float()
        fresh_RD = F.normalize(member_RN / member_RN.sum(1, keepdim=True) @ t_ND, dim=1)
        self.vector_UD[rows_R] = fresh_RD.detach()
        table = self.vector_UD.clone().index_copy(0, rows_R, fresh_RD)
        return table[self.key_U != 0], self.known(own_N)

    def known(self, rows: Tensor) -> Tensor:
        """Places in the table among the rows that are taken, (N) to (N)."""
        return (self.key_U != 0).cumsum(0)[rows] - 1

    def rows(self, keys_N: Tensor) -> Tensor:
        """The row of each sentence, (N) to (N); a new one takes the next row, that of a sentence of this batch excepted."""
        keys = keys_N.tolist()
        held = {key: row for row, key in enumerate(self.key_U.tolist()) if key}
        used = {held[key] for key in keys if key in held}
        row = int(self.next_row)
        for key in dict.fromkeys(keys):
            if key in held:
                continue
            if len(used) >= ROWS:
                raise ValueError(f"a batch has more than {ROWS} distinct sentences")
            while row in used:
                row = (row + 1) % ROWS
            held[key] = row
            used.add(row)
            self.key_U[row], self.count_U[row], self.mask_UG[row] = key, 0, 0
            row = (row + 1) % ROWS
        self.next_row.fill_(row)
        return torch.tensor([held[key] for key in keys], device=keys_N.device)

    @torch.no_grad()
    def learn(self, grid_NG: Tensor, own_N: Tensor) -> None:
        """Moves the mean masks on by the films of a batch, in whatever order these stand: their masks (N, G), the places of their sentences
        (N).
        """
        if not len(grid_NG):
            return
        rows = (self.key_U != 0).nonzero()[:, 0][own_N]
        rows_R, place_N = torch.unique(rows, return_inverse=True)
        member_RN = F.one_hot(place_N, len(rows_R)).T
        new_R = member_RN.sum(1)
        self.count_U[rows_R] += new_R
        surplus = member_RN.float() @ grid_NG - new_R[:, None] * self.mask_UG[rows_R]
        self.mask_UG[rows_R] += surplus / self.count_U[rows_R][:, None]

    # ---------------------------------------------------------------- the terms

    @torch.no_grad()
    def labels(self, grid_NG: Tensor, own_N: Tensor, table_UD: Tensor) -> tuple[Tensor, Tensor]:
        """Q (N, U), at least half of it on the own sentence, and its soft half; without soft labels both are one-hot."""
        onehot_NU = F.one_hot(own_N, len(table_UD)).float()
        if not self.soft_labels:
            return onehot_NU, onehot_NU
        overlap_NU = overlap(grid_NG, self.mask_UG[self.key_U != 0])
        centred_UD = F.normalize(table_UD - table_UD.mean(0), dim=1)
        close_NU = torch.maximum((centred_UD[own_N] @ centred_UD.T).clamp(min=0), onehot_NU)
        distance_NU = 1 - (OVERLAP_SHARE * overlap_NU + (1 - OVERLAP_SHARE) * close_NU)
        soft_NU = (-distance_NU / SOFTNESS).softmax(1)
        return 0.5 * onehot_NU + 0.5 * soft_NU, soft_NU

    def terms(
        self, level: int, p: Targets, t_ND: Tensor, table_UD: Tensor, q_NU: Tensor, own_N: Tensor, contrast: Tensor, margins: Tensor
    ) -> Terms:
        """One value a film. Image to text needs two sentences to choose from, text to image two films; a term that has nothing to choose
        from is left out. `t_ND` are the films' sentences; `contrast` and `margins` are (N), True for films with a target and with a
        background. `q_NU` has the rows of the former only.
        """
        v_ND, own = p.v_ND[contrast], own_N[contrast]
        logits_NU = v_ND @ table_UD.T / self.tau[level]
        none = v_ND.new_zeros(0)
        to_text = divergence(q_NU, logits_NU) if len(table_UD) > 1 else none
        to_image = none
        if len(v_ND) > 1:  # row n: the sentence of film n, and which of the films it means
            wanted = q_NU[:, own].T
            to_image = divergence(wanted / wanted.sum(1, keepdim=True), logits_NU[:, own].T)
        fit = (p.v_ND * t_ND).sum(1)
        if not contrast.any():
            return Terms(to_text, to_image, none)
        fit = torch.where(contrast, fit, fit[contrast].mean().detach())  # a film without a target: its background against others' targets
        margin = F.relu(MARGIN - fit + (p.b_ND * t_ND).sum(1))
        return Terms(to_text, to_image, margin[margins])

    @torch.no_grad()
    def figures(self, p: Targets, t_ND: Tensor, own_N: Tensor, contrast: Tensor, margins: Tensor) -> dict[str, Tensor]:
        """How much nearer a sentence is to its target than to the background, and how alike targets of different sentences are: scalars.
        As in `terms`.
        """
        found = {}
        both = contrast & margins
        if both.any():
            found["gap"] = ((p.v_ND - p.b_ND) * t_ND).sum(1)[both].mean()
        v_ND, own = p.v_ND[contrast], own_N[contrast]
        differ = own[:, None] != own[None]
        if differ.any():
            found["target_cosine"] = (v_ND @ v_ND.T)[differ].mean()
        return found

    def alarms(self, figures: Mapping[str, float]) -> list[str]:
        """What the figures say against the alignment."""
        said = []
        if figures.get("soft_entropy", 0.0) > ENTROPY_ALARM:
            said.append(f"alignment: the soft labels say next to nothing, their entropy is above {ENTROPY_ALARM:g} of the largest")
        for stride in self.strides:
            if figures.get(f"target_cosine_{stride}", 0.0) > COSINE_ALARM:
                what = "the targets of different sentences have collapsed into one vector"
                said.append(f"alignment: at stride {stride} {what}, mean cosine above {COSINE_ALARM:g}")
        return said


def key_of(text: str) -> int:
    """A number for a sentence, the same for all of its spellings that `normalise` unites; 0 for an empty one."""
    plain = normalise(text)
    return int.from_bytes(hashlib.sha256(plain.encode()).digest()[:8], "big", signed=True) if plain else 0


def pool(z_BDhw: Tensor, mask_B1HW: Tensor, valid_B1HW: Tensor, stride: int) -> Targets:
    """Mean of a map over the target and over the background, (N, D) each, unit length; zero where there is none."""
    share, weight = cells_of(mask_B1HW, valid_B1HW, z_BDhw, stride)

    def mean(w_B1hw: Tensor) -> Tensor:
        return F.normalize((z_BDhw * w_B1hw).flatten(2).sum(2) / w_B1hw.flatten(1).sum(1, keepdim=True).clamp(min=1e-6), dim=1)

    return Targets(mean(share * weight), mean((1 - share) * weight))


def overlap(a_NG: Tensor, b_UG: Tensor) -> Tensor:
    """2 sum min(a, b) / (sum a + sum b) of every pair (N, U), 0 where both are empty."""
    shared = torch.minimum(a_NG[:, None], b_UG[None]).sum(2)
    return 2 * shared / (a_NG.sum(1)[:, None] + b_UG.sum(1)[None]).clamp(min=1e-6)


def divergence(q_NU: Tensor, logits_NU: Tensor) -> Tensor:
    """KL(Q || softmax(logits)) of each row, in nats (N)."""
    return (torch.xlogy(q_NU, q_NU) - q_NU * logits_NU.log_softmax(1)).sum(1)


def gather(x: Tensor) -> Tensor:
    """The rows of all processes, with their gradient, (B, ...) to (N, ...); those of this one alone where there is no other."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return x
    if x.requires_grad:
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(x))  # type: ignore[no-untyped-call]
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)
