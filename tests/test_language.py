"""Reports in other languages are not read; English ones are, also the short and the unusual."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportseg.knowledge.bank import load_bank, shipped_banks
from reportseg.text import FOREIGN, NAMED, read_report
from reportseg.text.language import foreign_words

OTHER = """
Keine Infiltrate
Kein Pneumothorax.
Pneumothorax ausgeschlossen.
Tumor rechts.
Kein Pneumothorax, kein Tumor, Herz normal. Port in situ.
Der Herzschatten ist normal breit. Keine Stauung, kein Erguss. Bekannter Tumor im linken Oberlappen.
Pas d'épanchement
Pas de pneumothorax.
Absence de pneumothorax
Aucun nodule.
Nodule de la base gauche
Opacité basale gauche, pas d'épanchement pleural, silhouette cardiaque normale.
Sin consolidaciones
Neumonía bilateral
Sin lesiones nodulares bilaterales
Derrame pleural bilateral.
Fibrosis pulmonar bilateral
No se observa derrame pleural ni neumotórax.
Silueta cardíaca normal. Sin infiltrados.
Non infiltrati
Nessun pneumothorax, nessun tumor
Ombra cardiaca nei limiti. Non versamento pleurico.
Sem consolidações.
Sem pneumothorax
Pneumonia no lobo inferior direito
Brak pneumothorax
Płuca bez zmian ogniskowych. Serce niepowiększone.
Geen pneumothorax
Er is geen pneumothorax of consolidatie
Inga infiltrat
Pnömotoraks yok
Pneumothorax résorbé
Zuweiser Dr. Meyer: kein Pneumothorax
Dr. Meyer. Kein Pneumothorax.
Legkie bez infiltrativnykh teney
Shuang fei wei jian shi bian
Лёгкие без очаговых изменений.
Без pneumothorax
Pneumothorax: nein
effusion none, consolidation keine, pneumothorax kein
Cardiomégalie. Surcharge vasculaire.
Versamento pleurico bilaterale
Hartgrootte normaal, geen infiltraat
左側に胸水あり。
흉수 없음
لا يوجد استرواح
双肺未见实变
右侧 pneumothorax
未见 pneumothorax, mass, nodule
胸部X光片：左肺下叶肺炎。
""".strip().splitlines()

ENGLISH = """
Negative.
Liver
Spleen
Cardiomegaly.
Normal chest.
No foobar.
Platelike atelectasis
Bibasilar discoid atelectasis
Mild dextroscoliosis.
Lt effusion. Rt PICC.
ILD. COPD.
S/p CABG. Cholecystectomy clips.
PICC, ETT and NGT in place.
Effusion 3.5 cm x 2cm.
XXXX effusion.
It isn't enlarged.
Situs inversus totalis. The heart is on the right. Small left effusion.
De novo mass in situ in the left lung.
Pectus excavatum. Situs solitus. Residuum post lobectomiam.  The mass is in the left lung.
Patient of Dr. Müller. The nodule of the left lung is unchanged.
The report says "keine Infiltrate", and there is a nodule in the left lung.
Sessile polyp in the sigmoid colon
Hypoechoic mass in the left breast
Tree-in-bud nodules.
Bilateral infection, two infected areas
Hydropneumothorax.
Kerley B lines.
WNL
Wedge-shaped hypoattenuating lesion of the spleen
Hyperplastic polyp
COVID-19 pneumonia.
ARDS.
Bilateral GGO.
Median sternotomy.
Hiatus hernia.
Pericardial thickening.
Localised consolidation.
Widespread consolidation.
Encapsulated effusion.
LLL PNA.
Subsolid nodule.
Non-solid nodule.
Serrated lesion
Necrotic mass.
Hepatic hemangioma.
Pancreatitis.
Diverticulitis.
Verruciform papillated polyp
Left effusion. Dictated by: Juan Carlos Hernandez Villanueva Morales
Left effusion. Electronically signed by Juan de la Cruz Hernandez, Klinik am See, Musterstadt
Left effusion. John Smith, Maria Garcia, https://pacs.clinic.example/studies/abc
Small effusion. Dr. Jürgen Müller
INDICATION: Husten und Fieber, Ausschluss einer Pneumonie. FINDINGS: Small left effusion.
""".strip().splitlines()


@pytest.mark.parametrize("report", OTHER)
def test_a_report_in_another_language_is_not_read_and_its_words_are_named(report: str) -> None:
    reading = read_report(report)
    assert reading.findings == ()
    assert reading.foreign and set(reading.foreign) <= set(_letters(report))
    assert {part.reason for part in reading.skipped} == {"other_language"}
    assert all(report[part.span[0] : part.span[1]] == part.text for part in reading.skipped)


@pytest.mark.parametrize("report", ENGLISH)
def test_an_english_report_is_read_whatever_its_names_and_rare_words(report: str) -> None:
    assert read_report(report).foreign == ()


@pytest.mark.parametrize("bank", shipped_banks())
def test_every_concept_and_term_of_the_banks_is_english(bank: str) -> None:
    terms = {term for statement in load_bank(bank).statements for term in (statement.concept, *statement.terms)}
    assert len(terms) > 50
    assert [term for term in sorted(terms) if foreign_words(term) or foreign_words(f"{term}.")] == []


def _letters(report: str) -> list[str]:
    return "".join(c if c.isalpha() else " " for c in report.lower()).split()


@pytest.mark.parametrize("report", ["", " \n", "3.5 cm", "12", "XXXX", "x", "?!"])
def test_what_has_no_words_is_in_no_other_language(report: str) -> None:
    assert foreign_words(report) == ()


def test_a_translation_below_an_english_report_ends_neither() -> None:
    """Each is a report of its own; together the larger part decides."""
    english = "The heart is normal in size. There is a small effusion on the left, and the right lung is clear. No pneumothorax. "
    spanish = "Silueta normal. Derrame izquierdo. "
    assert [finding.polarity for finding in read_report(english + spanish).asked] == ["present"]
    assert read_report(spanish * 4 + "No pneumothorax.").foreign


def test_words_are_named_once_and_few() -> None:
    named = foreign_words("Zeta " * 50 + " ".join(f"fremd{chr(97 + i)}{chr(97 + j)}" for i in range(9) for j in range(9)))
    assert named[0] == "zeta" and len(named) == len(set(named)) == NAMED


def test_words_of_other_languages_are_written_as_they_are_looked_up() -> None:
    assert all(word == word.lower() and word.isalpha() and len(word) > 1 for word in FOREIGN)


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    assert len(foreign_words(text)) <= NAMED


@pytest.mark.parametrize("unit", "no|keine |a|左|左 |x |effusion, |\n|İ|’".split("|"))
def test_a_text_at_the_limit_has_an_answer(unit: str) -> None:
    assert len(foreign_words((unit * 2**15)[: 2**15])) <= NAMED


@pytest.mark.data
def test_no_real_english_report_is_refused(data_root: Path) -> None:
    with open(data_root / "reports" / "indiana_reports.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3851
    for row in rows:
        whole = f"INDICATION: {row['indication']}\nFINDINGS: {row['findings']}\nIMPRESSION: {row['impression']}"
        assert not any(map(foreign_words, (row["findings"], row["impression"], whole))), row["uid"]
