"""The films of a study: one data set, the split that is scored, and manifests of the study's own where its films are drawn apart.

`dev` as the split to score is a tenth of the training films, whole patients, that no run of the study sees: each run then draws its own dev
from what is left, so that nothing is chosen on the films that the answer comes from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..config import RunConfig
from ..data.manifest import MANIFEST, Dataset, read_manifest, read_table, write_manifest
from ..data.splits import draw_dev, split_sha256
from ..errors import InputError
from ..scoring import hash_cases
from ..text import normalise
from ..types import Sample

DEV = "dev"
LEFT_OUT = "left-out"  # the split of films that a run must not see


@dataclass(frozen=True)
class Films:
    """`train` may be trained on, `scored` is scored. `split_of`: the split of films that the study moves, by id."""

    dataset: Dataset
    train: list[Sample]
    scored: list[Sample]
    split_of: Mapping[str, str]

    @property
    def hashes(self) -> dict[str, str]:
        """For the plan: who is trained on and who is scored."""
        return {"train": split_sha256(s.id for s in self.train), "scored": split_sha256(s.id for s in self.scored)}

    def contents(self, column: str) -> dict[str, str]:
        """For the plan: what these films say, which was read from `column`, and show. It may change while their ids stay.

        InputError: those of read_mask, for the first true mask that cannot be read.
        """
        sentences = {f"sentences of column {column}": sentences_sha256([*self.train, *self.scored])}
        return sentences | {"masks of train": hash_cases(self.train), "masks of scored": hash_cases(self.scored)}


def sentences_sha256(samples: Iterable[Sample]) -> str:
    """Hash of what models read of these films: the normalised sentences with their ids and whose left they mean."""
    lines = sorted(f"{sample.id}\t{sample.laterality}\t{normalise(sample.text)}" for sample in samples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_films(config: RunConfig, manifest: str | Path | None, split: str) -> Films:
    """The one data set of a study. InputError: no_manifest, one_manifest (several), split, those of read_manifest, empty_split."""
    named = manifest if manifest is not None else config.data.manifest
    if not named:
        raise InputError("no data was given", "data.manifest", "Give --data with a manifest or its folder.", "no_manifest")
    if isinstance(named, list):
        raise InputError("a study takes one data set", "data.manifest", "Name one of them with --data.", "one_manifest")
    if config.data.train == split:
        fix = f"Score another split; {DEV} is a tenth of it that the study does not train on."
        raise InputError(f"the films of the split {split!r} are those that are trained on", "--split", fix, "split")
    dataset = read_manifest(named, text_column=config.data.text_column)
    train = dataset.split(config.data.train)[: config.data.limit]
    if split != DEV or any(sample.split == DEV for sample in dataset.samples):
        return Films(dataset, train, dataset.split(split), {})
    held = set(draw_dev(train, dataset.name))
    kept = {sample.id for sample in train} - held
    # What `limit` leaves out stays out: among the first films of what is left there would be others of the patients held.
    split_of = {sample.id: DEV if sample.id in held else LEFT_OUT for sample in dataset.split(config.data.train) if sample.id not in kept}
    return Films(dataset, [s for s in train if s.id in kept], [s for s in train if s.id in held], split_of)


def own_manifest(films: Films, folder: Path, split_of: Mapping[str, str]) -> Path:
    """The study's manifest, with other splits for the ids in `split_of`; the films stay in place. Where none moves: the data set's own."""
    dataset = films.dataset
    if not split_of:
        return dataset.path
    rows = []
    for row, sample in zip(read_table(dataset.path, ("image", "mask")), dataset.samples, strict=True):
        rows.append({**row, "id": sample.id, "split": split_of.get(sample.id, sample.split)})
    write_manifest(folder, rows, dataset.info.model_copy(update={"root": str(dataset.root.resolve())}))
    return folder / MANIFEST
