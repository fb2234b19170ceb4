"""What can go wrong, said once: one exception for the user's input, one list of warnings by code."""

from __future__ import annotations

from os import PathLike

#: Recorded in predictions, `cases.csv` and reports; the code is the contract, the sentence may improve.
WARNINGS: dict[str, str] = {
    "laterality_assumed": "the text names a side and the file does not say whose left it is; the bundle's own convention was used",
    "negated": "the whole text says that nothing is there; the mask is empty, and a report gets none",
    "out_of_vocabulary": "many words of the text were never seen in training, or it is in another language; the answer may ignore them",
    "text_truncated": "the text is longer than the model reads; the words past the limit had no effect",
    "empty_text": "the text is empty; the model answered from the image alone",
    "not_mirrored": "the text has a side word that cannot be exchanged, or the film is a view without left and right; "
    "the answer was not averaged with that to the mirrored film",
    "no_knowledge": "no statement of the knowledge bank fits the text",
    "spacing_unknown": "the file states no pixel spacing; areas and distances are in pixels",
    "multi_frame": "the file holds several frames; only the first was read",
    "orientation_assumed": "the file does not say how the patient lies in it; the patient's left was taken to be on the right",
    "view_without_sides": "left and right of the patient do not lie beside each other in this view; the answer names no side",
    "spacing_at_detector": "the pixel spacing is that on the detector; in the patient areas and distances are smaller",
    "no_window": "the file has no window; the least and the largest value became black and white",
    "no_volume_training": "the bundle was trained on films, not on slices of imported volumes; its answer to a volume may mean nothing",
    "slice_gaps": "slices are missing, or lie at uneven distances; where none lies nothing is answered and nothing counted",
    "duplicate_positions": "several slices lie at the same place and only their numbers tell them apart; "
    "each is part of another stack or a film of its own",
    "loose_frames": "frames of the file that belong to none of its stacks of slices were left out",
    "duplicate_files": "the same slice lies there in several files; it was read once",
    "several_phases": "the series or file holds several echoes, times or acquisitions of the same place; each is a stack of its own",
    "mixed_grids": "the series or file holds slices of several sizes, spacings or frames of reference; each kind is a stack of its own",
    "mixed_orientations": "the series or file holds slices of several orientations; each is a stack of its own",
    "gantry_tilt": "the slices are shifted against each other, as by a tilted gantry; they were not straightened",
    "localiser": "the series holds localisers; they were kept apart",
    "preamble": "the file was made to look like another kind of file too; only its DICOM part was read",
    "alpha_dropped": "the transparency channel was ignored",
}


class InputError(ValueError):
    """The user's input cannot be used. Says what is wrong, where, and how to mend it.

    `code` is a short stable word for `failures.csv` and the API. `where` is a path or an option as the user wrote it; a server
    and a log print `public()` instead, since names of files may hold names of people.
    """

    def __init__(self, what: str, where: str | PathLike[str] = "", fix: str = "", code: str = "input") -> None:
        super().__init__(what, str(where), fix, code)  # all four, so that a copy from another process keeps them
        self.what, self.where, self.fix, self.code = what, str(where), fix, code

    def __str__(self) -> str:
        head = f"{self.where}: " if self.where else ""
        tail = f" {self.fix}" if self.fix else ""
        return f"{head}{self.what.rstrip('.')}.{tail}"

    def public(self) -> str:
        """The message without the path."""
        tail = f" {self.fix}" if self.fix else ""
        return f"{self.what.rstrip('.')}.{tail}"
