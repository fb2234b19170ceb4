"""The words by which reports name findings, devices and normal structures, and those that affirm, deny or doubt them.

Every entry is a list of alternatives, regular expressions over folded text (`sentences.fold`) that match whole words; a blank inside one
stands for up to three blanks or hyphens. An entry names what makes a finding, not the words around it: "calcified granuloma" is found by
"granuloma". Written for chest films, with the generic nouns of other parts of the body. English only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Label -> words. Order matters where one label's words begin another's: the first that fits is taken.
FINDINGS: dict[str, str] = {
    "catheter": r"""
        picc | port ?a ?cath | mediport | infusaport | (?:chest |infusion )?ports? |
        (?:central|venous|arterial|subclavian|jugular|picc|ij|dialysis|power) (?:\w+ )?(?:line|access|catheter)s? |
        (?:picc|central|swan ganz) lines? | catheters? | swan ganz | vas ?cath | permacath | cv[cl] | central line
    """,
    "tube": r"""
        (?:endotracheal|nasogastric|orogastric|enteric|feeding|chest|thoracostomy|ng|og|et|drainage) (?:tube|catheter)s? |
        ett | ngt | dobb?hoff | tracheostomy | tubes? | tubing | shunt | drains? | pigtail
    """,
    "pacemaker": r"""
        pacemakers? | pacers? | pacing (?:device|lead|wire)s? | icds? | aicd | defibrillators? |
        (?:pacemaker |icd |pacer )?(?:leads|electrodes?) | (?:atrial|ventricular|pacer|pacemaker|defibrillator|pacing) leads?
    """,
    "valve": r"""
        (?:prosthetic|artificial|mechanical|bioprosthetic|aortic|mitral|tricuspid|heart|cardiac) valves? |
        valve (?:replacement|prosthesis|repair|artifact)s? | valvular prosthes[ie]s | valvuloplasty | annuloplasty | tavr
    """,
    "sternotomy": r"""
        (?:median |midline )?sternotomy(?: (?:wire|suture)s?)? | sternal wires? | cerclage wires? | cabg(?: (?:clip|marker|change)s?)? |
        (?:coronary (?:artery )?)?bypass(?: graft\w*| surgery| clips?)?
    """,
    "surgical change": r"""
        post ?(?:procedural|thoracotomy|sternotomy|radiation|treatment) (?:change|scarring|finding)s? |
        post ?(?:surgical|operative) | surgical (?:change|clip|staple|suture|material|hardware|defect|absence)s? |
        (?:\w+ectomy|thoracotomy)(?: (?:change|clip|scar)s?)? | (?:surgical |metallic |vascular |hemo)?clips? |
        sutures?(?: material| lines?)? | staples?(?: lines?)? | resections? | prior surgery | previous surgery | lung surgery |
        vertebroplasty | kyphoplasty | cement | transplants? | surgically absent
    """,
    "hardware": r"""
        (?:orthopedic |fixation |fusion |spinal |metallic )?hardware | prosthes[ie]s |
        (?:fixation|internal|fusion) (?:plate|rod|screw|device)s? | plates? | screws? | rods? | (?:internal )?fixation |
        arthroplast(?:y|ies) | (?:cervical |lumbar |thoracic |spinal )?fusion | surgical anchors? | implants? | stents?(?: grafts?)? |
        wires?
    """,
    "device": r"""
        (?:\w+ )?stimulators? | devices? | loop recorder | recorder | coils? | balloon pump | iabp | (?:ivc )?filters? |
        support apparatus | generators? | battery | ekg leads | monitoring leads | cuffs? | sheath | pump
    """,
    "foreign body": r"""
        foreign (?:body|bodies|object|material)s? | bullets? | shrapnel | bb s | pellets? |
        metallic (?:fragment|density|densities|object|foreign bod(?:y|ies))s?
    """,
    "pneumothorax": r"(?:hydro|haemo|hemo|tension )?(?:pneumothora\w+|pneumo ?thora(?:x|ces|xes)|ptx) | pleural air",
    "pneumomediastinum": r"pneumo ?mediastinum | pneumopericardium | mediastinal (?:air|emphysema)",
    "free air": r"""
        pneumoperitoneum |
        free (?:(?:intra ?peritoneal|(?:sub|infra) ?diaphragmatic|peritoneal|abdominal) )?(?:air|gas) |
        (?:intra ?peritoneal|(?:sub|infra) ?diaphragmatic|extra ?luminal|peritoneal) (?:free )?(?:air|gas)
    """,
    "subcutaneous emphysema": r"subcutaneous (?:emphysema|air|gas) | soft tissue (?:emphysema|gas|air)",
    "pleural effusion": r"""
        (?:para ?pneumonic |pleural |loculated |sub ?pulmonic )?effusions? | pleural (?:fluid|collection)s? |
        h(?:a?e|y)(?:mo|dro)thorax | empyema | pericardial (?:effusion|fluid) | fluid collections? | fissural fluid | free fluid |
        (?:fluid|effusion)s?(?= (?:in|within|along|layering))
    """,
    "pneumonia": r"""
        (?:broncho|pleuro)?pneumonias? | pna | pneumonic\w*(?: (?:process|infiltrate|consolidation))?s? | pneumonitis
    """,
    "infection": r"""
        (?:acute |active )?infecti(?:on|ons|ous)(?: (?:process|etiology|infiltrate|disease)(?:es)?)? | inflammation |
        inflammatory(?: (?:process|change|disease)(?:es|s)?)? | abscess(?:es)? | sepsis
    """,
    "tuberculosis": r"(?:active )?(?:tuberculosis|tb|tuberculous)(?: (?:disease|infection))?",
    "granuloma": r"""
        (?:calcified )?granulomas? | granulomata | granulomatous(?: (?:disease|change|process|infection|calcification)(?:es|s)?)? |
        histoplasmosis | ghon | ranke
    """,
    "atelectasis": r"""
        atelecta(?:sis|ses|tic) |
        volume loss | loss of volume | collapsed?
    """,
    "edema": r"o?edema(?:tous)? | interstitial fluid",
    "vascular congestion": r"""
        congest(?:ion|ed|ive)(?: (?:change|failure))?s? | engorge(?:ment|d) | cephali[sz]ation |
        (?:vascular |bronchovascular )?crowding | vascular redistribution | indistinct(?:ness)?
    """,
    "heart failure": r"(?:congestive )?(?:heart|cardiac) failure | chf | (?:fluid|volume) overload | decompensation",
    "emphysema": r"""
        emphysema(?:tous)?(?: (?:change|disease)s?)? | copd | chronic obstructive(?: (?:pulmonary|lung|airways?) disease)? |
        obstructive (?:lung|pulmonary|airways?) disease | bulla(?:e|s)? | bullous(?: disease| change)?s? | blebs?
    """,
    "hyperinflation": r"hyper ?(?:inflat|expan|aerat)\w+ | over ?(?:inflat|aerat)\w+ | air ?trapping | barrel chest",
    "hypoinflation": r"""
        hypo ?(?:inflat|ventilat|expan|aerat)\w+ | under ?inflat\w+ |
        (?:low|decreased|diminished|reduced|small|shallow)(?: \w+)? volumes? | low lung volume |
        (?:lung )?volumes? (?:is|are|remains?) (?:\w+ly )?(?:low|decreased|diminished|reduced|small) |
        (?:shallow|poor|low|suboptimal) inspirat\w+
    """,
    "interstitial disease": r"""
        interstitial (?:disease|marking|change|prominence|thickening|pattern|process|infiltrate|abnormalit(?:y|ies))s? |
        (?:increased|prominent|coarse|coarsened|chronic|accentuated)(?: \w+){0,2} (?:lung |bronchovascular |interstitial )?markings? |
        prominence of (?:the )?(?:\w+ )?(?:interstiti\w+|markings?|bronchovascular markings?) | interstitial |
        reticul\w+(?: (?:opacit(?:y|ies)|pattern|marking|nodular opacit(?:y|ies))s?)? | honeycomb\w* | ild
    """,
    "cystic fibrosis": r"cystic fibrosis",
    "fibrosis": r"fibro(?:sis|tic)(?: (?:change|scarring|disease)s?)? | fibronodular | fibrocalcific",
    "scar": r"scar(?:s|ring|red)?(?: (?:change)s?)? | cicatri\w+ | bands?",
    "bronchiectasis": r"bronchiecta\w+(?: changes?)?",
    "bronchial thickening": r"""
        (?:peri ?)?bronchial (?:wall )?(?:thickening|cuffing|markings|inflammation) | peri ?bronchial cuffing |
        airways? (?:thickening|disease) | small airways? disease | reactive airways?(?: disease)? | bronchit\w+ | bronchiol\w+ |
        asthma | cuffing
    """,
    "cavity": r"cavit(?:y|ies|ary|ation|ating|ated)(?: lesions?)? | cystic (?:change|lesion)s? | pneumatocele",
    "consolidation": r"consolidat\w+(?: (?:process|change)(?:es|s)?)?",
    "airspace disease": r"""
        air ?space (?:disease|process|abnormalit(?:y|ies)|change)(?:es|s)? | alveolar (?:process|disease)(?:es)?
    """,
    "infiltrate": r"infiltrat\w+",
    "opacity": r"""
        opaci(?:ty|ties|fication|fications|fied) | densit(?:y|ies) | haz(?:e|y|iness) | shadow(?:ing|s)? |
        ground ?glass(?: opacit(?:y|ies))? | ggos? | white ?out | air bronchograms? | silhouetting
    """,
    "lymphadenopathy": r"""
        (?:lymph)?adenopath(?:y|ies) | lymph ?nodes? | lymph(?= xxxx) | (?:enlarged|calcified|prominent) (?:\w+ )?nodes? | nodes
    """,
    "tumor": r"""
        tumou?rs? | neoplas\w+ | malignan\w+ | cancers? | carcinomas? | metasta\w+(?: disease| lesions?)? | lymphomas? |
        (?:fibro)?adenomas? | sarcomas? | melanoma
    """,
    "nodule": r"nodul\w+(?: (?:opacit(?:y|ies)|densit(?:y|ies)|lesion)s?)? | nodes? of calcification",
    "mass": r"mass(?:es)?(?: ?like)?(?: (?:lesion|opacit(?:y|ies))s?)?",
    "polyp": r"polyps? | polypoid(?: lesions?)?",
    "cyst": r"cysts? | cystic",
    "lesion": r"lesions?",
    "sarcoidosis": r"sarcoid\w*",
    "pneumoconiosis": r"pneumoconios[ie]s | silicos[ie]s | asbestos\w*",
    "aspiration": r"aspirat\w+",
    "embolism": r"emboli(?:sm|c)? | pe(?! (?:protocol|study|ct)) | embolus | infarct\w* | thromb(?:us|osis|i)",
    "hemorrhage": r"ha?emorrhag\w+ | ha?ematomas? | contusions? | bleed(?:ing|s)?",
    "chronic change": r"(?:chronic|senescent|age related) (?:\w+ )?changes",
    "cardiomegaly": r"""
        (?:heart|silhouette) (?:size )?(?:is|appears) (?:\w+ly )?(?:large|increased) | borderline (?:heart|cardiac) size |
        cardiomegaly | cardiac (?:enlargement|decompensation) | megacardia
    """,
    "tortuosity": r"tortu(?:ous|osity|osities) | unfold(?:ing|ed) | uncoil(?:ing|ed) | elongat(?:ion|ed)",
    "ectasia": r"ecta(?:sia|tic|sis) | dilat\w+",
    "aneurysm": r"aneurysm\w* | dissection",
    "atherosclerosis": r"""
        (?:athero|arterio)(?:sclero\w+|ma\w*|matous)(?: (?:disease|change|calcification|plaque|vascular disease)(?:es|s)?)? | plaques? |
        coronary artery disease
    """,
    "calcification": r"calcifi\w+ | calcific(?: densit(?:y|ies))? | phlebolith\w*",
    "enlargement": r"""
        enlarg\w+ | hypertroph\w+ | promin(?:ent|ence) | full(?:ness) | splenomegaly | hepatomegaly | organomegaly |
        hepatosplenomegaly | goiter
    """,
    "widening": r"widen(?:ed|ing)",
    "shift": r"(?:mediastinal |midline |tracheal )?(?:shift\w*|deviat\w+|displac\w+)",
    "pulmonary hypertension": r"(?:pulmonary (?:arterial )?)?hypertension",
    "hernia": r"(?:hiat(?:al|us) |diaphragmatic |bochdalek |morgagni )?hernia(?:s|tion|ted)?",
    "thickening": r"""
        (?:(?:bi)?apical |pleural |pleuro ?parenchymal )*(?:thicken(?:ing|ed)|capping) | (?:apical |pleural )caps? |
        pleural (?:scarring|disease|based) | pleural reaction
    """,
    "blunting": r"blunt(?:ing|ed)",
    "elevation": r"elevat(?:ion|ed)",
    "eventration": r"eventrat\w+",
    "flattening": r"flatten(?:ing|ed)",
    "dislocation": r"(?:dis|sub)locat\w+ | subluxat\w+ | separation | listhesis | (?:antero|retro|spondylo)listhesis",
    "fracture": r"""
        (?:(?:compression|wedge|rib|insufficiency|burst) )*(?:fractur\w+)(?: deformit(?:y|ies))? |
        (?:vertebral |endplate )?compression(?: deformit(?:y|ies))? | wedging | loss of (?:\w+ )?height | height loss
    """,
    "deformity": r"""
        (?:wedge |compression )*(?:deformit(?:y|ies)|deformed) | pectus(?: excavatum| carinatum)? | malformation | anomal(?:y|ies|ous) |
        azygos (?:lobe|fissure) | irregularit(?:y|ies) | contour abnormalit(?:y|ies) | cervical ribs?
    """,
    "degenerative change": r"""
        degenerat\w+(?: (?:\w+ )?(?:change|disease|spurring|spondylosis|dis[ck] disease|joint disease|osteophyte)s?)? | spondylosis |
        spondylitic(?: changes?)? | osteophyt\w+ | osteo ?arthr\w+(?: changes?)? |
        arthr(?:itic|itis|opathy|osis)(?: (?:change|disease)s?)? | dis[ck] (?:disease|space narrowing|narrowing) | spur(?:s|ring)? |
        end ?plate (?:change|irregularity|sclerosis)s? |
        (?:hypertrophic|proliferative|arthritic|spondylitic|dish) (?:change|spurring)s? | dish | syndesmophytes? |
        joint space narrowing | diffuse idiopathic skeletal hyperostosis | ankylos\w+
    """,
    "scoliosis": r"""
        \w*scoliosis | scoliotic | (?:dextro|levo)(?:curvature|convex\w*) | (?:s shaped |convex(?:ity)? |lateral )?curvature
    """,
    "kyphosis": r"kypho(?:sis|tic) | hyperkyphosis | lordosis",
    "osteopenia": r"osteop(?:enia|enic|orosis|orotic) | deminerali[sz]\w+ | renal osteodystrophy | bone loss",
    "sclerosis": r"scleros[ie]s | sclerotic(?: (?:lesion|foc(?:us|i)|change)s?)?",
    "lucency": r"lucen(?:cy|cies|t)(?: lesions?)? | hyperlucen\w+ | lytic(?: lesions?)? | erosions? | destruction",
    "stone": r"(?:gall|kidney |renal )?stones? | cholelithiasis | nephrolithiasis | calcul(?:us|i)",
    "obstruction": r"""
        (?:bowel )?obstruction | ileus | distent\w+ | distended | hydronephrosis | stenos[ie]s | stricture | narrowing
    """,
    "ascites": r"ascites",
    "ulcer": r"ulcer\w*",
    "swelling": r"swelling | swollen",
    "gastric air": r"air fluid levels?",
    "abnormal": r"abnormal(?:ly)?",
}

#: A part of a device: a device by itself only where none is named. What is said of it is not said of the device.
TIP = r"tips? | side ?(?:port|hole)s?"

#: Nouns that say nothing by themselves: a finding only where they are denied ("no acute process").
GENERIC = r"""
    abnormalit(?:y|ies) | findings? | diseases? | process(?:es)? | patholog(?:y|ies|ic) | changes | injur(?:y|ies) | trauma | insult |
    illness | complications? | recurrence | failure
"""

STRUCTURES: dict[str, str] = {
    "mediastinum": r"""
        (?:cardio ?)?mediastin(?:um|al)(?: (?:silhouette|contour|border|structure|shadow|size|margin|width|cardiac size)s?)? |
        cardio ?mediastinal(?: (?:silhouette|contour|size|shadow|structure)s?)?
    """,
    "heart": r"""
        (?:heart|cardiac|cardio ?pericardial)(?: (?:size|silhouette|contour|shadow|border|apex|chamber|structure)s?)?(?: size)?
    """,
    "aorta": r"""
        (?:thoracic |descending |ascending |transverse )*(?:aorta|aortic (?:arch|knob|contour|root|shadow)) | aortic
    """,
    "vasculature": r"""
        (?:broncho|pulmonary |lung )?(?:vascular\w*|vasculature|vessels)(?: (?:marking|pattern|structure)s?)? |
        pulmonary (?:arter(?:y|ies|ial)|vein)s?
    """,
    "hila": r"(?:peri ?)?hil(?:a|um|ar|us)(?: (?:contour|structure|region|shadow)s?)?",
    "trachea": r"trachea(?:l air column)? | airways? | bronch(?:us|i) | carina",
    "pleura": r"""
        pleura(?:l (?:space|surface|margin)s?)? | (?:costo ?phrenic|cardio ?phrenic)(?: (?:angle|sulc(?:us|i)|recess|xxxx)(?:es|s)?)? |
        sulc(?:us|i) | fissures? | (?:major|minor) fissure
    """,
    "lung": r"""
        (?:lungs?|pulmonary|lobes?|parenchyma\w*) (?:field|parenchyma|volume|base|apex|apices|marking|zone|expansion|aeration)s? |
        lungs? | pulmonary | lobes? | parenchyma\w* | markings |
        hemithora\w+ | retrocardiac | lingula | rul | rml | rll | lul | lll | bases | apex | apices | mid ?lungs?
    """,
    "diaphragm": r"(?:hemi ?)?diaphragms?",
    "bones": r"""
        (?:visuali[sz]ed )?(?:osseous|bony|skeletal)(?: (?:structure|thorax|element|skeleton|thoracic structure)s?)? | bones? |
        skeleton | ribs? | clavicles? | scapulae? | sternum | humer(?:us|al|i) | shoulders? |
        (?:thoracic|lumbar|cervical|thoracolumbar|t|l|c)?(?: ?spine) | vertebra\w*(?: bod(?:y|ies))? | disc spaces? |
        (?:ac|acromioclavicular|glenohumeral) joints?
    """,
    "soft tissue": r"soft tissues?",
    "abdomen": r"""
        (?:upper )?abdomen | bowel(?: gas)?(?: pattern)? | liver | spleen | kidneys? | stomach | gallbladder | pancreas | bladder |
        colon | uterus | prostate | gastric bubble | hepatic
    """,
    "breast": r"breasts?",
    "thyroid": r"thyroid(?: gland)?",
    "chest": r"""
        (?:chest|thorax|exam|study)(?: (?:x ?(?:ray|xxxx)|radiograph|film|exam(?:ination)?|xxxx)s?)? |
        intra ?thoracic structures | examination | film | radiograph
    """,
}

NORMAL = r"""
    (?:with)?in (?:the )?(?:normal|expected)(?: \w+)? (?:limit|range|parameter)s? | within limits of normal | wnl |
    (?:at )?(?:the )?upper (?:limits? |range )?(?:of )?normal(?: limits?)? | (?:top|upper)(?: limits?)? normal | unremarkable |
    normal(?:ly)? | clear(?! of| from) | intact | midline | patent | sharp |
    (?:well|fully|normally) (?:expanded|aerated|inflated|defined|maintained|preserved|ventilated|visualized and clear) | preserved |
    maintained | symmetric(?:al)? | negative(?! for) | satisfactory | well ?aerated | expanded
"""

# ---------------------------------------------------------------- what affirms, denies or doubts

SEEN = """
    seen|present|identified|visible|visuali[sz]ed|detected|observed|evident|noted|found|appreciated|demonstrated|apparent|shown|suggested|
    demonstrable|discernible|recogni[sz]ed|depicted|suspected|re-?demonstrated
"""
SEEN = f"(?:{''.join(SEEN.split())})"

#: "is not" and "isn't" say the same, wherever one of them is asked for.
NOT = r"(?:not|\w{2,6}n't)"

#: What makes a clause of the words around it.
VERBS = r"(?:is|are|was|were|remains?|appears?|shows?|demonstrates?|has|have)"

#: What "cannot be excluded" is said with.
SETTLED = "(?:excluded|ruled out|discounted|confirmed|proven|verified|established)"

WENT = r"(?:resolved|cleared|disappeared|(?<!\bbe\s)removed|ruled out|excluded)"

#: Behind "has cleared": some of it is there.
PART = (
    r"(?! (?:somewhat|partly|partially|incompletely|slightly|considerably|in part|to (?:a|some) (?:\w+ )?(?:extent|degree))\b"
    r"| with (?!no\b)(?:\w+ ){0,5}(?:residual|remnant|component)s?(?! (?!in|at|on|remain)\w))"
)

#: Between "no" and "change".
MUCH = (
    "(?: (?:significant|interval|appreciable|substantial|definite|major|overall|gross|further|acute|obvious|large"
    "|(?:radiographic )?evidence (?:of|for)|signs? of))"
)

CHANGE = "(?:change(?!s)|increase|decrease|improvement|progression|worsening|resolution|difference)"

#: What "should be considered" and is no finding: it is advised.
EXAMS = (
    r"(?:ct|mri?|pet|xray|ultraso\w+|mammogra\w+|films?|radiographs?|views?|imaging|biops\w+|bronchoscopy|thoracentesis|stud(?:y|ies)|"
    r"examinations?|evaluation|correlation|assessment|treatment|drainage|removal|advancement|repositioning|follow ?up|placement|insertion|"
    r"replacement|exchange|withdrawal|intubation|intervention|surgery|therapy|diuresis|screening|surveillance|angiogra\w+|scans?|work ?up|"
    r"tomography|consultation|referral)"
)
ADVISED = rf"{EXAMS}(?: (?!(?:and|which|that|shows?|showed|is|are|was|were)\b)\w+){{0,8}} (?:can|could|may|might|should|must) be considered"

#: A side alone, where a finding is not: "right effusion, not left". Behind "but" it is told of as a finding (`units.py`).
NOT_THERE = r"""
    (?<!but\s)(?:not|rather than|instead of) (?:(?:on|in|at) )?(?:the )?(?:left|right|lt|rt)(?: side| one)?(?=\s?(?:[.,;)]|$)) |
    (?:(?<=right\s)but not (?:the )?left|(?<=left\s)but not (?:the )?right)(?=\s(?!side)\w)
"""

#: Look like a denial or a doubt and are none.
PSEUDO = (
    rf"{NOT_THERE} |"
    + r"""
    (?:may|might|could|likely|probably|possibly)(?: be)? (?=(?:within|in|at|near|over|overlying) ) |
    (?:no|without|(?:lack|absence) of)<much>{0,3} (?:<change>(?: (?:in|of|from))?|interval(?: (?:in|of|from|xxxx)\b|(?=\s?[.,;]))) |
    no (?:more|less) than | no (?:smaller|larger|bigger|better|worse|different)(?= (?:than|from)\b|\s?[.,;]) |
    uncertain (?:significance|etiology) | <not> (?:only|just|merely|simply|necessarily) | nothing (?:but|to do with|(?:more|other) than) |
    <not> (?:yet )?(?:\w+ly )?(?:changed|worse\w*|improved|progressed|increased|decreased|resolved|cleared) |
    <not> (?:well|fully|completely|optimally|adequately|entirely|included)(?! (?:<seen>|<settled>))(?: \w+)? |
    <not> (?:\w+ly )?(?:suspicious|concerning|worrisome)(?! (?:for|of)\b) |
    <advised> | <not> (?:\w+ly )?<seen> (?:(?:on|in) (?:the )?(?:\w+ )?(?:prior|previous|earlier|last|comparison)|previously|before) |
    <not> (?:been )?(?:previously|formerly) (?:been )?<seen> |
    no (?:prior|previous|old|comparisons?|available|relevant|recent|other)(?: \w+){0,2} (?:study|studies|films?|images?|exams?|xxxx) |
    for removal(?! of\b) | (?:needs?|await(?:s|ing)?|consider|requir(?:es?|ing)|pending|before|prior to) removal(?: of)? |
    no\.\s?\d+ | no comparison | (?:no|without) (?:doubt|question) | with or without |
    (?:(?:has|have|had|is|are|was|were) )?(?:(?:now|since) )?(?:been )?(?:all but|
     (?:partial|incomplete|near|almost|large|most|part|substantial|virtual|practical|significant|considerable|marked|slight)(?:ly)?)
     (?:(?:complete|total|entire)(?:ly)? )?(?:interval )?(?:resolution|clearing|disappearance|resolved|cleared|disappeared|gone|removed) |
    (?:some|gradual|continued|continuing|ongoing|further|slow) (?:interval )?(?:resolution|clearing) |
    neither (?:increased|enlarged|improved|progressed|worse\w*|larger|better) nor \w+
"""
)

DOUBTED_AFTER = r"""
    (?:can ?not|could not|<not>) (?:been )?(?:be )?(?:\w+ly )?<settled> |
    (?:is|are|was|were) (?:\w+ly )?(?:suspected|suggested|questioned|questionable|possible|doubtful)(?= (?:in|at|on|over|within|near)\b) |
    (?:can|could|may|might|should|must) (?:also )?be considered |
    <not> (?:well|fully|completely|optimally|adequately|entirely) <seen> |
    (?:difficult|hard|impossible) to (?:exclude|rule out) |
    \(\?+\) | (?:(?:is|are) )?(?:not certain|uncertain|equivocal|(?:a )?(?:consideration|possibility|concern))
"""

DENIED_AFTER = r"""
    (?:<seen> )?(?:in|on|at|within) neither |
    (?:<not>|no longer|never) (?:\w+ly )?(?:been )?(?:be )?(?:\w+ly )?<seen> |
    <not> (?:yet )?(?:develop|recurr?|re-?accumulate|re-?appear|persist)(?:e?d)? |
    (?:(?:has|have|had) )?(?:since )?(?:\w+ly )?(?:since )?(?:been )?<went><part> |
    removal(?! of\b) | no longer (?:in place|in situ) |
    (?:is|are|was|were) (?:now )?(?:\w+ly )?(?:absent|gone|resolved|excluded) |
    (?:now )?gone(?! (?:up|down|on|to|from)) | absent(?=\s(?:on|in|at|bilaterally)\b)
"""

DOUBTS = r"""
    possibl[ey] | possibility of | probabl[ey] | (?:(?:most|more|less) )?likely(?! than) | unlikely | may | might | could |
    suggest(?:s|ed|ing|ion|ive)?(?: of)? | suspect(?:ed|s)? | suspicious(?: for| of)? | suspicion(?: for| of)? |
    concern(?:ing|s)?(?: for| of| about)? | worrisome(?: for| of)? | questionabl[ey] | question(?:ed)?(?: of)? | equivocal |
    presum(?:ed|ably|ptive) | perhaps | doubt(?:s|ed|ful)?(?: (?:of|about))? | ,? ?if (?:any|present|real),?(?! change) | if |
    rule out | to rule out | r/o | query |
    (?:can ?not|cant|<not>) (?:be )?(?:able to )?(?:\w+ly )?(?:exclude|rule out) | to exclude | exclude |
    evaluate(?: for)? | evaluation (?:for|of) | eval(?: for)? | assess(?: for)? | check for | look for |
    ddx | differential(?: (?:diagnosis|considerations))?(?: includes?)? | favou?r(?:ed|s|ing)?(?! over) | potential(?:ly)? | whether |
    (?:felt|thought|believed|appears?|seems?) to (?:represent|be) |
    in (?:the )?absence of | xxxx (?:represent|indicat|reflect|sequela|due to|related|secondary)\w* | raises?(?: the)? | \?
"""

DENIES = r"""
    <not> (?:true|correct|right|so|the case) that |
    (?:can ?not|cant|<not>) (?:see|identify|appreciate|visuali[sz]e|find|detect|show|reveal|demonstrate) |
    no | not | nothing | nil | without | w/o | den(?:ies|ied|y) | neg(?:ative)? for | devoid of | free (?:of|from) | clear (?:of|from) |
    absence of | absent | lack(?:s|ing)?(?: of)? | neither | never | nor | none | n't | negatives(?= ?:) | <gone> |
    resolved | excluded | rather than | fails? to (?:show|reveal|demonstrate) | instead of
"""

#: Denials of what was there: what came "with" it is told anew, "removal of the tube with a pneumothorax".
GONE = re.compile(r"(?:interval )?(?:resolution|clearing|removal|disappearance) of")

#: Denials that reach their own clause only: "the heart is not enlarged, tortuous aorta".
NARROW = re.compile(r"not|never|n't|absent|resolved|excluded|rather than|instead of")

#: What a form answers with, the whole of what follows ":", "=", " - ", "(", "?" or a box.
YES = r"yes | present | positive | \(\+\) | \+(?=\s?\))"
NO = r"no | none | none <seen> | absent | neg(?:ative)? | nil | not <seen> | 0 | \(\-\) | \-(?=\s?\))"
UNSURE = r"possible | probable | likely | questionable | suspected | equivocal | indeterminate | uncertain | unknown | not assessed"

#: Ends the reach of a denial or a doubt.
TURNS = r"""
    but | however | although | though | yet | except(?: for)? | with (?:the )?exception of | save for | aside from |
    apart from | other than | besides | despite | in spite of | while | whereas | after | (?<!the\s)following | status post | s/p |
    which | who | that (?:is|are|was|were|has|have|may|could) | nevertheless | nonetheless | still | in addition | additionally
"""

ALTERNATIVES = r"(?:(?:is|are) )?favou?red over | (?:more|less) likely than | and/or | or | nor | versus | vs\.? | \+/ ? | ±"

JOINS = r", | : | \( | \) | / | & | and | as well as | plus | along with | in addition to"

#: One finding, then what it stands for or comes from: a new unit, the same reach.
LEADS = r"""
    consistent with | compatible with | in keeping with | indicat(?:es?|ing|ive)(?: of)? | represent(?:s|ing)? | reflect(?:s|ing)? |
    due to | secondary to | related to | corresponding to | associated with | superimposed on | includ(?:es?|ing) | such as |
    accompanied by | from | with
"""

HISTORY = r"(?:history of|hx of|h/o|known history|status post(?= \w+ (?:ago|years)))(?: \w+)?"

ADVICE = r"""
    recommend\w* | advis(?:e|ed|able) | suggest (?:follow|further|clinical|repeat|correlation|dedicated|ct)\w* | follow ?up |
    correlat\w+ | consider (?:further|ct|follow|repeat|dedicated|evaluation|chest)\w* |
    would (?:better|be (?:helpful|useful|of|beneficial|better|more)) |
    (?:can|could|may|should) be (?:obtained|performed|further|helpful|better|of benefit|useful) |
    <advised> |
    if (?:there (?:is|are) )?(?:(?:further|persistent|clinical|clinically) ){0,2}(?:concern|suspicion|suspected|indicated) |
    further evaluation | (?:evaluation|assessment) (?:for|of) (?:\w+ ){1,6}(?:is|are) limited |
    limit(?:s|ed|ing) (?:evaluation|assessment) | (?:please|clinical) correlat\w* | attention on
"""


#: What the entries above name in pointed brackets.
_PARTS = {
    "<seen>": SEEN,
    "<not>": NOT,
    "<settled>": SETTLED,
    "<went>": WENT,
    "<part>": PART,
    "<much>": MUCH,
    "<change>": CHANGE,
    "<advised>": ADVISED,
    "<gone>": GONE.pattern,
}


def alternation(words: str) -> str:
    """The alternatives of an entry as one group."""
    one_line = re.sub(r"\s*\|\s*|\s*\n\s*", lambda cut: "|" if "|" in cut.group() else " ", words.strip())
    for name, pattern in _PARTS.items():
        one_line = one_line.replace(name, pattern)
    return "(?:" + one_line.replace(" ?", r"[\s\-]?").replace(" ", r"[\s\-]{1,3}") + ")"


def labelled(table: Mapping[str, str], prefix: str) -> tuple[str, dict[str, str]]:
    """One alternative of named groups for the table, and the label of each group."""
    groups = {f"{prefix}{number}": label for number, label in enumerate(table)}
    return "|".join(f"(?P<{group}>{alternation(table[label])})" for group, label in groups.items()), groups
