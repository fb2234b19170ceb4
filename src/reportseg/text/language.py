"""Whether a report is in English, the one language that it can be read in.

Words of other languages look like English ones where both come from Latin: "Keine Infiltrate" affirms nothing, and "Pneumothorax: nein"
denies. So a report is read only where most of its words are known, and where its small words are not those of another language. A few rare
words prove nothing beside a word of the lexicon, unless one of them is plainly of another language: "Hyperplastic polyp" is English.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from .pieces import marker, names
from .sentences import fold, sentences
from .sides import FOREIGN_SIDES
from .spelling import clean

_WORD = re.compile(r"(?<![^\W_])[^\W\d_]{2,}(?![^\W_])")  # of letters only: no numbers with their units, no single letters
_HIDDEN = re.compile("x+")  # stands for what was taken out of a report
_ASIDE = re.compile(r"\bhttps?://\S+|\bwww\.\S+|(?<!\S)[\w.+\-]{1,64}@\S+|\bnon-(?=\w)")  # addresses, and the English "non-"
_SIGNED = re.compile(
    r"\b(?:signed|dictated|transcribed|reported|interpreted|verified|approved|authenticated|read|reviewed)(?: electronically)? by\b.*|"
    r"\bdr\b\.?(?: [^\W\d_][\w'.\-]{0,30}){1,3}"
)
_BEGIN = re.compile(
    r"^(?:anti|bi|broncho|cardio|costo|extra|hyper|hypo|in|infra|inter|intra|mal|micro|mid|multi|non|over|para|peri|pleuro|post|pre|re|"
    r"retro|semi|sub|supra|trans|un|under)"
)
_ENDING = re.compile(r"(?:like|ing|ly|(?<=[sxh])es|e?d|s)$")
_DISEASE = re.compile(r"[a-z]{3,}(?:itis|omas?|os[ie]s|ectomy|otomy|ostomy|opathy|plasia|plastic)")

#: Small words that are English only: "in", "no", "as", "or", "on", "is" and "of" are words of other languages, too.
_SMALL = frozenset("the and are were there this that these with without from which been has have to by for not".split())

#: What English reports do not say: denials, small words and sides of other languages, and what their reports begin with.
FOREIGN = FOREIGN_SIDES | frozenset(
    """
    kein keine keinen keinem keiner keinerlei nicht ohne nein ausgeschlossen fehlt fehlen und oder mit bei der dem ein eine einer eines
    sin con las una por para ninguna ninguno ningun ningún tampoco descartado descarta
    sans pas avec aucun aucune une dans aux chez
    senza nessun nessuna nessuno della delle dello degli nella nelle assenza
    sem com uma não nao nenhum nenhuma ausencia ausência
    bez nie brak oraz jest
    geen niet zonder een het
    ingen inga inget inte ikke uten uden utan och
    yok yoktur nincs není žádný
    pulmonar pulmonares pulmonaire pulmonaires pulmonare derrame épanchement epanchement
    ausente ausentes assente assenti absente fehlend afwezig verdacht fraglich resuelto risolto
    """.split()
)

#: Small words of other languages that English borrows ("de novo", "non-calcified", names): a sign, but none that a prompt is warned of.
_BORROWED = frozenset("de du des la le les los el il lo al non se ne pe im am zu".split())

#: Common English beyond the lexicon, of the kind that reports are written with; `_common` knows usual beginnings and endings.
_WORDS = frozenset(
    """
    is of an in on at was be am do does did had having it itself he she his her they their them we our you your those here where when
    while who what why how within as if or nor but than then so such also too very more most less least much many few several some any
    each every all both either neither other another same own just even yet still again ever never yes none nil can could may might must
    shall should will would cannot per via versus about above across after against along among around before behind below beneath beside
    between beyond during except further into like near off onto opposite out outside inside over past since through throughout toward
    until up down under upon because although though however therefore thus otherwise additionally overall together apart away back one
    two three four five six seven eight nine ten first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
    single double pair half multiple numerous once twice last next total number patient man woman male female boy girl child infant
    adult newborn year old month week day hour today yesterday tomorrow date time age doctor dr mr ms nurse physician radiologist
    surgeon clinic clinical hospital emergency department room ward telephone phone call discuss report exam examination study film
    image view radiograph radiography radiographic radiology xray ray scan ct mri tomography ultrasound ultrasonography sonography
    sonographic sonogram mammogram mammography endoscopy colonoscopy bronchoscopy biopsy pet contrast enhanced unenhanced portable
    digital upright supine erect semi semiupright decubitus frontal lateral oblique axial coronal sagittal posterior anterior
    posteroanterior anteroposterior pa ap lat technique protocol procedure series dose exposure penetration rotate rotation position
    obtain perform acquire submit available dictate sign transcribe review receive compare comparison correlate correlation prior
    previous current present recent former earlier baseline interval follow followup advise recommend suggest consider request require
    evaluate evaluation assess assessment examine determine confirm verify document monitor need want help impression conclusion
    indication history reason symptom complaint pain fever cough dyspnea breath shortness weak weakness wheeze sputum chill sweat loss
    weight fall trauma injury accident assault smoke smoker tobacco alcohol pregnant preoperative postoperative operative operation
    surgery surgical status post known unknown diagnosis diagnose diagnostic disease disorder syndrome condition illness process problem
    abnormal abnormality normal unremarkable remarkable negative positive acute subacute chronic new active inactive early late long
    short longstanding healed healing resolve resolution clear improve improvement worse worsen progress progression progressive
    increase decrease change unchanged stable stability persist persistent remain residual recurrent intermittent transient temporary
    permanent small tiny minute little minimal minor mild slight subtle faint trace moderate severe significant extensive massive large
    great big gross major huge mean average size measure measurement millimeter centimeter mm cm ml diameter length width height volume
    amount degree extent grade stage level type kind part portion area region zone site location field segment segmental subsegmental
    lobar lobe lobular focal multifocal diffuse patchy scatter streaky linear curvilinear round oval ovoid irregular smooth spiculated
    lobulated circumscribed defined ill well sharp blurry vague hazy dense thick thin flat wide narrow deep shallow confluent discrete
    solitary isolated cluster group bundle band plate discoid disc disk wedge ring rim left right bilateral unilateral ipsilateral
    contralateral side upper lower middle mid central peripheral basal basilar base apical apex medial superior inferior proximal distal
    dorsal ventral perihilar parahilar paratracheal paraspinal paravertebral paramediastinal subcarinal retrosternal retrocardiac
    infrahilar suprahilar subpleural pleural parenchymal interstitial alveolar airspace mediastinal hilar hila hilum cardiac
    cardiovascular cardiopulmonary pulmonary bronchial bronchovascular vascular venous arterial thoracic abdominal thoracolumbar
    cervical lumbar sacral pelvic pelvis hepatic renal splenic gastric biliary osseous bony skeletal vertebral costal costophrenic
    cardiophrenic diaphragmatic subdiaphragmatic intrathoracic extrathoracic chest thorax lung heart aorta aortic arch ventricle
    ventricular atrium atrial valve vena cava svc ivc vein artery vessel trachea bronchus carina airway larynx pharynx esophagus
    esophageal stomach bowel colon rectum rectal sigmoid cecum duodenum liver spleen kidney pancreas pancreatic gallbladder bladder
    prostate uterus ovary ovarian adrenal gland thyroid breast nipple axilla axillary neck head brain skull face arm hand wrist elbow
    shoulder clavicle clavicular scapula scapular sternum sternal rib spine spinal vertebra humerus humeral hip leg knee ankle foot
    femur femoral joint bone muscle fat skin tissue soft cell nucleus nuclei nuclear glandular epithelium epithelial membrane wall
    margin border edge contour outline surface silhouette shadow angle fissure recess space cavity lumen duct node lymph blood fluid air
    gas water mucus line tube catheter device wire lead drain port tip end course project projection overlie overlap underlie place
    placement insert remove removal retract advance withdraw terminate extend extension enter exit cross pass lie lay rest sit support
    apparatus hardware clip suture jugular subclavian brachiocephalic innominate cavoatrial junction ett ng picc icu ed copd chf cabg tb
    see seen show demonstrate reveal display note identify visible visualize visualise appear appearance apparent evident evidence
    detect observe find found appreciate describe represent reflect relate relative due secondary cause consistent compatible suggestive
    suspicious concern worrisome unlikely probable probably possible possibly perhaps maybe questionable equivocal certain uncertain
    definite indeterminate nonspecific specific typical atypical characteristic benign malignant metastatic primary tumor tumour cancer
    infectious inflammatory bacterial viral fungal aspiration congenital developmental degenerative hypertrophic atherosclerotic
    postsurgical traumatic physiologic anatomic differential exclude include involve associate accompany contain occupy fill cover
    surround compress displace shift deviate midline tortuous ectatic enlarge prominent prominence full fullness dilate distend calcify
    calcification sclerotic lucent lucency opaque opacity density attenuation signal intensity echogenic hyperechoic hypoechoic anechoic
    isoechoic heterogeneous homogeneous lesion mass nodule cyst polyp stone ulcer sessile pedunculated aerate aeration expand expansion
    inflate inflation inspire inspiration inspiratory expire expiratory effort ventilate ventilation perfusion circulation congestion
    pressure pattern texture mark limit limitation technical quality artifact motion obscure partial complete incomplete adequate
    inadequate suboptimal optimal satisfactory fair poor excellent better best appropriate proper correct unusual usual common rare
    simple complex complicated uncomplicated free open close empty intact preserve maintain symmetric symmetrical asymmetric asymmetry
    equal similar different difference vary variant variation essentially approximately keep give go come make take get put set use turn
    run start begin stop continue develop form grow rise drop move thing way case fact question point order word name answer item
    section addendum comment thank please regard sincerely electronically dear refer referral high low top bottom front body dual
    chamber biventricular stranding demineralization hyperexpansion hyperinflation hypoventilation hypoinflation swan ganz ground glass
    foreign bodies nodular reticular reticulonodular miliary cavitary cystic bullous fibrotic granulomatous pneumonic atelectatic
    edematous emphysematous isn wasn aren weren doesn didn hasn hadn couldn shouldn wouldn don hiatal helpful borderline superimpose
    indicate greater overt given specifically underlying overlying lingula lingular characterize characterization critical result
    treatment treat therapy dedicated adjacent ensure warrant factor configuration aspect notify notification ascend descend additional
    tender tenderness useful shape sequela sequelae quadrant consideration loculated obvious structure internal external reactive
    difficult collection anticipate focus foci conspicuous coronary compartment habitus benefit intravenous desire repeat periphery
    interstitium exaggerate combination incidental feature unclear detail layer message radiographically presence retraction allow
    innumerable acknowledge coarse true care localize define flow locate loop workup accentuate stigmata extremity remote term exact
    destructive couple evolve onset sinus alternative establish notable sectional send sent callus crowd replace replacement approach
    alignment certainty substantial origin radiation fragment bronchiectatic emphysema opacification silhouetting tapering thickened
    widened elevated calcific granular fibronodular ureteral urinary retroperitoneal peritoneal mesenteric scalp orbit orbital nasal
    maxillary mandible mandibular temporal parietal occipital intracranial midbrain cerebral cerebellar cortical subcortical white gray
    grey matter infarct edema gyrus stem cord canal herniation endplate facet foramen foraminal thrombosis tendon ligament meniscus
    cartilage marrow tibia tibial fibula radius radial ulna ulnar carpal tarsal patella patellar acetabulum sacrum sacroiliac iliac
    pubic phalanx metacarpal metatarsal calcaneus fatty steatosis cirrhosis hepatocellular portal bile adnexal endometrial myometrial
    fibroid follicle scrotal testis testicular seminal parotid salivary submandibular lacrimal cutaneous dermal melanocytic pigmented
    carinatum acromioclavicular lumbosacral mucosa mucosal fold villous tubular crypt stroma stromal basophilic eosinophilic mitotic
    lymphocyte macrophage stain slide resection specimen ductal intraductal microcalcification spiculation parallel shadowing
    enhancement hypervascular avascular vascularity birads lirads tirads score category class risk lt rt lhs rhs preop postop cxr hx fx
    dx pt sob htn wbc ago obese amputate septal mitral annular tricuspid umbilical infect tree bud crazy pave hump fleischner kerley
    hampton chilaiditi pancoast bochdalek morgagni hill sachs lvad situ lipomatosis diverticulosis adenomatous adenoma fibroadenoma
    carcinomatosis lymphangitic mesothelioma thymoma intubate intubation extubation nad endometrioma osteosarcoma meniscal tear torn
    subdural epidural subarachnoid rads bi ti impella pneumatocele laceration glioma meningioma
    accessory acoustic adipocyte adipose affect angular annotation anorectal apoptosis apoptotic ards areola azygos azygous background bat
    bedside blue blur bottle boundary bright broad bronchogenic bubble butterfly caecum caliper caliber cancerous cap capillary cellular
    center centre cholecyst cholecystic circle circular colonic colorectal connective corner covid cytoplasm dark debris depress
    diminutive distress distribution divide dome duodenal ecg echo efface egg ekg ellipse elliptical encapsulate endothelial endothelium
    endotracheal entire eosin eosinophil erythematous erythrocyte faeces feces fibroblast fibroglandular figure fissural forceps fuzzy
    gall ggo giant glare glomerulus granulocyte growth gullet haematoxylin haustra haustral hematoxylin hepatocyte hiatus highlight
    horizontal hyperplastic ileum immune instrument interlobar interlobular intestinal intestine invasive jejunum lipoma localise lump
    lymphocytic lymphoid marker median medical medium mesentery mitoses mitosis mix muscular mushroom mycobacterial nasogastric necrosis
    necrotic needle neutral neutrophil nucleoli nucleolus obscuration obstruct obstructive oesophageal oesophagus orogastric overload pace
    pale patch pectoral pedicle pericardial pericardium peritoneum picture pink pinkish plasma pleomorphic prostatic pseudotumor purple
    pyknotic reactivate reactivation rectangle rectangular red reddish reflection regular residue respiratory serrate snare solid sparse
    specular spherical spicule spindle spread square stalk stellate stool tail telemetry tension text thoracostomy tool touch tracheal
    track tram transmission triangle triangular tubule tubulovillous tunnel urothelial urothelium veil vesical whitish whole wing yellow
    yellowish pna reactivate widespread hemangioma haemangioma copious effusive angioma lipid urine calculus abdomen thymus thymic
    hamartoma teratoma lymphoma sarcoma leukemia anemia
    """.split()
)

NAMED = 20  # words that are told: enough to see the language, too few to hold a report
_RARE = 4  # unknown words that a short English report may have: two names, or a rare disease


@lru_cache(maxsize=64)
def foreign_words(report: str) -> tuple[str, ...]:
    """The words that show that a report is not in English, in lower case and in its order, each once, at most 20; none for an English one.

    It is not English where more than half of its words are neither in the lexicon nor common English; where half of them are and it has no
    small word of English; or where it has more small words of other languages than of English. Up to four unknown words prove nothing
    beside a word of the lexicon, if none of them is known from another language or has a letter that English has not. What stands under
    other headings than those of findings is not counted where there are such, nor who signed, addresses, numbers with their units, single
    letters and what was made unreadable (XXXX).
    """
    found = list(_words(_told(clean(report))))
    strange = [word for word, known, _ in found if not known]
    other = sum(_elsewhere(word) for word in strange)
    small = sum(word in _SMALL for word, _, _ in found)
    beyond = 2 * len(strange) - len(found)
    tied = bool(found) and beyond == 0 and not small and all(word != "no" for word, _, _ in found)
    signs = any(word in FOREIGN or word in _BORROWED or not word.isascii() for word in strange)
    few = not signs and len(strange) <= _RARE and any(named for _, _, named in found)
    foreign = ((beyond > 0 or tied) and not few) or other > small
    return tuple(dict.fromkeys(strange))[:NAMED] if foreign else ()


def _told(text: str) -> str:
    """What a report tells of its film, folded: without other sections, signatures and addresses; all of it where nothing is left."""
    low = fold(text)
    parts = [low[sentence.start : sentence.end] for sentence in sentences(text) if sentence.section == "findings"]
    told = "\n".join(_SIGNED.sub(_unsigned, _ASIDE.sub(" ", part)) for part in parts)
    return told if _WORD.search(told) else low


def _unsigned(match: re.Match[str]) -> str:
    """What is not a name behind "signed by": "Dr. Meyer: kein Pneumothorax" keeps its denial."""
    return " ".join(word for word in _WORD.findall(match.group()) if _elsewhere(word))


def _words(low: str) -> Iterator[tuple[str, bool, bool]]:
    """The words of a folded text; whether each is known, within a mark of the lexicon or common English; whether it names a thing of it."""
    marks = ((m.start(), m.end(), names(m)) for m in marker().finditer(low))
    beyond = (len(low), len(low), False)
    start, end, named = next(marks, beyond)
    for word in _WORD.finditer(low):
        if _HIDDEN.fullmatch(word.group()):
            continue
        while end <= word.start():
            start, end, named = next(marks, beyond)
        marked = start < word.end()
        known = not _elsewhere(word.group()) and (marked or _common(word.group()))
        yield word.group(), known, marked and named


def _elsewhere(word: str) -> bool:
    """Whether only another language has the word: a known one, or one in another script."""
    return word in FOREIGN or any(character >= "\u0250" for character in word)


@lru_cache(maxsize=4096)
def _common(word: str) -> bool:
    """Whether the word, or what is left of it without a usual beginning or ending, is common English."""
    return any(form in _WORDS or form in _SMALL for whole in (word, _root(word)) for form in _forms(whole)) or bool(
        _DISEASE.fullmatch(word)
    )


def _root(word: str) -> str:
    root = _BEGIN.sub("", word)
    return root if len(root) > 3 else word


def _forms(word: str) -> Iterator[str]:
    yield word
    stem = _ENDING.sub("", word)
    if stem != word and len(stem) > 2:
        yield from (stem, stem + "e")
        if stem[-1] == "i":
            yield stem[:-1] + "y"  # "identified"
        if stem[-1] == stem[-2]:
            yield stem[:-1]  # "stopped"
