"""What a segment shows, in codes: the labels of findings and the names of organs as SNOMED CT concepts of DICOM's own lists.

What has no concept there is coded by what is sure of it: a finding as a lesion, anything else as tissue. The label stays in words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..text import normalise, read_report


@dataclass(frozen=True)
class Concept:
    """A SNOMED CT code and its meaning."""

    value: str
    meaning: str


ABNORMAL = Concept("49755003", "Morphologically Abnormal Structure")
ANATOMY = Concept("91723000", "Anatomical Structure")
OBJECT = Concept("260787004", "Physical object")
TISSUE = Concept("85756007", "Tissue")
LESION = Concept("52988006", "Lesion")

ABNORMALITIES: dict[str, Concept] = {
    "cyst": Concept("367643001", "Cyst"),
    "edema": Concept("79654002", "Edema"),
    "fibrosis": Concept("112674009", "Fibrosis"),
    "mass": Concept("4147007", "Mass"),
    "nodule": Concept("27925004", "Nodule"),
    "pleural effusion": Concept("60046008", "Pleural effusion"),
    "pneumomediastinum": Concept("16838000", "Pneumomediastinum"),
    "pneumothorax": Concept("36118008", "Pneumothorax"),
    "tumor": Concept("108369006", "Neoplasm"),
}
OBJECTS: dict[str, Concept] = {
    "catheter": Concept("19923001", "Catheter"),
    "foreign body": Concept("19227008", "Foreign body"),
    "pacemaker": Concept("14106009", "Cardiac pacemaker"),
    "tube": Concept("83059008", "Tube"),
}
ORGANS: dict[str, Concept] = {
    "adrenal gland": Concept("23451007", "Adrenal gland"),
    "aorta": Concept("15825003", "Aorta"),
    "bladder": Concept("89837001", "Urinary bladder"),
    "colon": Concept("71854001", "Colon"),
    "duodenum": Concept("38848004", "Duodenum"),
    "esophagus": Concept("32849002", "Esophagus"),
    "gallbladder": Concept("28231008", "Gallbladder"),
    "heart": Concept("80891009", "Heart"),
    "kidney": Concept("64033007", "Kidney"),
    "liver": Concept("10200004", "Liver"),
    "lung": Concept("39607008", "Lung"),
    "pancreas": Concept("15776009", "Pancreas"),
    "rectum": Concept("34402009", "Rectum"),
    "spleen": Concept("78961009", "Spleen"),
    "stomach": Concept("69695003", "Stomach"),
}
_ORGAN = re.compile(rf"(?:the )?(?:left |right |urinary )*({'|'.join(ORGANS)})s?(?: (?:in|on) (?:this|the) \w+)?[. ]*")


@dataclass(frozen=True)
class Meaning:
    """What a segment shows: its label, of at most 64 characters and in words of ours only, its category and its type."""

    label: str
    category: Concept
    type: Concept


def meaning_of(text: str, label: str | None = None) -> Meaning:
    """The meaning of a prompt, or of a report's finding that has been given a `label`; no word of the text itself gets into it."""
    organ = None if label else _ORGAN.fullmatch(normalise(text))
    if organ:
        return Meaning(organ[1], ANATOMY, ORGANS[organ[1]])
    if label is None:
        label = next((finding.label for finding in read_report(text).findings if finding.label), None)
    if label in OBJECTS:
        return Meaning(label, OBJECT, OBJECTS[label])
    return Meaning(label, ABNORMAL, ABNORMALITIES.get(label, LESION)) if label else Meaning("answer", TISSUE, TISSUE)
