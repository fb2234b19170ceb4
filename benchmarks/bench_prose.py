"""What docs/bench.md says in words, whatever the results are."""

HEAD = """# The bench

**This ranks architectures without pretraining; it does not rank the published models.** Every weight begins random, sizes are cut to
what a CPU trains, and pretrained towers, which the papers build on, have no part. What a method gains with them is not told here.

`benchmarks/bench.py` writes this page from `results/`, cell by cell. A cell is one method under one seed:
`results/bench-cpu/CELL/metrics.json` has its scores, intervals and text controls (none where no text is read); `cell.json` beside it
has the configuration, the commit, the curves on dev and the command, with the name of the data set for its folder. A cell that lies in
`results/` is done: to make it again give `--results` and `--page` other places.
"""

CPU = """
## On a CPU

```bash
make bench-cpu DATA=qata                       # goes on after a stop
make bench-cpu DATA=qata MINUTES=60 CELLS=tgcnet,unet-0
python benchmarks/bench.py cpu qata --list     # done, and to do
```
"""

FALLS = """ *Shuffled* and *sides swapped*: by how many points of
dice_pooled a method falls, on the films whose sentence that changes, where each has the sentence of another, or its own with left and
right exchanged. What is equal for all, and what the marks mean, is told under *Rules*."""

RULES = """
### Rules

- **Size**: at most 7 M parameters in all. The peers at their preset `cpu`, one factor on the widths of their published image side and
  decoder (LanGuideMedSeg 3/8, LViT 7/16, MMI-UNet 1/3, ResEnc U-Net 9/32), the words read by one small tower that all share; U-Net at
  width 30 of 64; TGC-Net and TMCA, whose published sizes are not known, at `small`. That favours these two: their depths were chosen
  for such a size, and TMCA's ConvNeXt has an overlapping stem from scratch; the peers' are those of their papers. All give logits at
  stride 2.
- **Films**: QaTa-COV19, half of the training films, the same for all: whole patients in an order that the data set's name seeds. A
  tenth of them is dev. Trained at 112 px, scored on val, 1,429 films, each on its own grid of 224 px. 112 is no multiple of 32:
  where a map has seven places a side, its half has four.
- **Training**: all weights, from random initialisation, on 24,000 images in batches of 32; augmentation, optimiser and schedule are
  those of the recipes `*_qata_small`. A method that reads text places its sentences before the first film, in 400 steps of 128 sentences
  and their masks without images (`train.text_steps`), whatever the number of images; a twin, which reads one sentence, does not. The
  speed and the time in `cell.json` begin with the first film.
- **Learning rate**: for each method the best of three on a quarter of the images and the first seed, by the sum of both Dice scores on
  dev. A twin, and a method that lacks a module, have the rate of their method.
- **Seeds**: 0 and 1. Both are shown; an interval is over patients, about these two runs, and says nothing of a third. Films without a
  known patient, 597 of the 1,429, count as one each, so that the width of an interval is a lower bound.
- **Made again**: where a recipe has changed, the sentences or the true masks, or what a model computes on a made-up batch, the bench stops
  until its cells are deleted. Cells of before do not tell sentences and training masks (no `films` in `cell.json`) and are held to the
  masks that they were scored on. Augmentation, training loop and scoring are not watched.
- **What val has decided**: nothing of a peer. A mistake in where TMCA's maps lie was mended when seed 0 of an earlier TMCA had been scored
  ([results](results.md#tmca-on-the-bench-where-its-maps-lie)); seed 1 had no part in it.
- **Marks**: `climbing` where a Dice score on dev still rose by more than 0.5 points over the last fifth of the images, so more of them
  would have helped; `falling` where it fell by as much; `end of the grid` where the best rate is the lowest or the highest of the three;
  `seed N diverged` where that training ended in a loss that is not finite. Such a method has no rank and stands below the others: the
  seeds that are left would flatter it. Why it ended is told under *Cells*.
"""

MODULE_TEXT = """
### Modules, at half the images

12,000 images for the full method and for each that lacks a module; seeds, films, order and learning rate are the same. Decided before
any was run: metric dice_mean, seeds 0 and 1, smallest effect of interest 0.3 points. *Helps*: the interval of with minus without lies
above 0. *Does not help*: its upper bound is below 0.003. *Undecided*: neither, and that is a full answer. The target enhancement is
judged where neither method has its pixel term, which falls away with it; else the term's gain would count twice. There is no verdict
before both seeds have been run. *Mechanism* is what training logged last, with the module and, where such a thing is left, without it: a
hint at whether the module did what it is there for. AUROC: cells inside the masks of dev against cells outside. `cell.json` has all such
figures.
"""

GPU = """
## On an accelerator

```bash
make bench-gpu DATA=qata CELLS=tgcnet                  # one cell at a time, or all
```

The same methods, sizes and rules at 224 px, logits at stride 4, all training films, 160,000 images (31 epochs), one seed, without the
modules.
"""
