"""What a segment's name says: an organ, a lung, an airway, or something else (then it is a lesion).

Knows the class names of TotalSegmentator (`lung_upper_lobe_left`, `vertebrae_T12`, `rib_left_3`) and what its extension in Slicer makes of
them (`superior lobe of left lung`, `T12 vertebra`, `left deep back muscle`), those of Lung CT Analyzer and of people (`Left lung`,
`LiverSegment 4`, `RightKidney`). A name that speaks of a tumour is a lesion whatever organ it names: `lung nodule`,
`Liver metastasis 2`, `kidney_tumor`.
"""

from __future__ import annotations

import re
from typing import Literal

LungPart = Literal["right lung", "left lung", "lungs"]


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LESION_WORDS = _word_set(
    """
    lesion lesions tumor tumors tumour tumours nodule nodules met mets metastasis metastases metastatic mass cancer
    carcinoma gtv ctv ptv itv neoplasm neoplasia malignancy target nontarget adenopathy lymphadenopathy implant deposit
    recurrence primary sarcoma lymphoma melanoma new
    """
)

_ORGAN_WORDS = _word_set(
    """
    abdomen abdominal abdominis adrenal airway airways alveolar annulus anus aorta aortic appendix arm arteries artery
    atrial atrium auditory autochthon axilla azygos background bifurcation bladder blood body bone bones bowel brachii
    brachiocephalic brain brainstem breast breasts bronchi bronchia bronchial bronchus caecum canal canine capsule carotid
    carpal carpus cartilage cartilages caudate cava cecum celiac cerebellum cerebral chest clavicle clavicles clavicula
    colon coracobrachial coracobrachialis coronary costal cricoid cyst cysts deltoid dental diaphragm digastric disc discs
    dorsi duodenum effusion erector esophagus external extremities extremity eye eyeball face fat feet femoris femur femurs
    fibula fissure foot gallbladder gland gluteus hand head heart hepatic hilum hip hips humerus hyoid hypopharynx ileum
    iliac iliacus iliopsoas incisor infraspinatus insula insular intermuscular intervertebral intestine jawbone jejunum
    jugular kidney kidneys larynx latissimus lens lentiform levator limb lingual liver lobe lumborum lung lungs lv mandible
    mandibular marrow masseter maxilla maxillary mediastinum mesenteric metacarpal metatarsal molar muscle muscles
    myocardium nasal nasopharynx neck nerve nucleus oblique oesophagus organ organs oropharynx ovary palate palpebrae
    pancreas parotid patella pectoral pectoralis pellucidum pelvis pericardial pericardium phalanges phalanx pharyngeal
    pharynx platysma pleura pleural portal premolar prevertebral prostate psoas pterygoid pul pulmonary pulp quadratus
    quadriceps radius rectum rectus renal rib ribs sacrum sartorius scalene scalenous scalenus scapula scapulae scapulas
    serratus sigmoid sinotubular sinus sinuses skeletal skeleton skin skull spinae spinal spine spleen splenic sterno
    sternocleidomastoid sternothyroid sternum stomach styloid subarachnoid subclavian subcutaneous submandibular
    subscapularis sulcus supraspinatus table tarsal teeth temporalis teres thalamus thigh thoracic thorax thyrohyoid thyroid
    tibia tissue tongue tooth torso trachea tracheobronchial transversospinalis trapezius triceps trunc trunk ulna ureter
    urinary uterus valve vein veins vena venous ventricle ventricles ventricular vertebra vertebrae vertebral vessel vessels
    zygomatic
    """
)

# Findings that are no tumour: what Lung CT Analyzer parts the lungs into, and what TotalSegmentator finds beside organs.
_OTHER_FINDINGS = _word_set(
    "aneurysm bleeding collapsed covid emphysema hemorrhage infiltrate infiltration inflated intracerebral vesselmask"
)

# Words that say where or what about an organ, and are no finding by themselves.
_NEUTRAL_WORDS = _word_set(
    """
    air all and anterior appendage arch area auricular back both cavity central collateral common compartment constrictor
    content contour cord cortex couinaud cusp deep dorsal eighth eleventh false fatty fdi fifth filled first fourth frontal
    half hard horn ii iii incisive inferior inner internal iv junction l label large lateral left lower lt lumen main major
    mask maximus medial medius middle minimus minius minor minus ninth non occipital of optic outer outflow parenchyma
    parietal posterior process proper r region right rt second segment segmentation septum seventh sixth small soft space
    start structure superior superioris system temporal tenth the third total tract tree trigone true twelfth upper v
    ventral vi vii viii volume wall whole without
    """
)

_AIRWAY_WORDS = _word_set("airway airways bronchi bronchia bronchial bronchus trachea tracheobronchial")

_SPINE = re.compile(r"^(c[1-7]|t1?[0-9]|l[1-6]|s[1-5])$")


def words(name: str) -> tuple[str, ...]:
    """Split a segment's name into lower-case words, at punctuation, digits and capitals.

    >>> words("LeftLung_upper-lobe 2")
    ('left', 'lung', 'upper', 'lobe', '2')
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    spaced = re.sub(r"(?<=[A-Za-z]{2})(?=[0-9])", " ", spaced)
    return tuple(part for part in re.split(r"[^A-Za-z0-9]+", spaced.lower()) if part)


def is_organ(name: str) -> bool:
    """Say whether a segment's name is that of an organ, a body part or no tumour: every word of it has to be one, or a side or number.

    >>> [is_organ(name) for name in ("lung_upper_lobe_left", "vertebrae_T12", "rib_left_3", "Liver")]
    [True, True, True, True]
    >>> [is_organ(name) for name in ("L1", "lung nodule", "Segment_1", "Liver metastasis")]
    [False, False, False, False]
    """
    parts = words(name)
    if any(part in _LESION_WORDS for part in parts) or "lymph" in parts:
        return False
    known = [part for part in parts if part in _ORGAN_WORDS or part in _OTHER_FINDINGS]
    if not known:
        return False
    spinal = any(part.startswith("vertebra") or part in ("disc", "discs", "spine") for part in known)
    return all(
        part in known or part in _NEUTRAL_WORDS or part.isdigit() or (spinal and _SPINE.match(part)) for part in parts
    )


def lung_part(name: str) -> LungPart | None:
    """Return which lung a segment is or belongs to, None where it is no lung.

    >>> [lung_part(name) for name in ("lung_middle_lobe_right", "Left lung", "lungs", "lung vessels", "lung nodule")]
    ['right lung', 'left lung', 'lungs', None, None]
    >>> lung_part("right upper lobe"), lung_part("inferior lobe of left lung")
    ('right lung', 'left lung')
    """
    parts = words(name)
    lobe = "lobe" in parts and any(part in ("upper", "middle", "lower", "superior", "inferior") for part in parts)
    if not is_organ(name) or not (lobe or "lung" in parts or "lungs" in parts):
        return None
    allowed = _word_set(
        "lung lungs lobe both mask segmentation segment upper middle lower superior inferior of the whole total parenchyma"
    )
    sides = {"left": "left lung", "l": "left lung", "lt": "left lung"}
    sides |= {"right": "right lung", "r": "right lung", "rt": "right lung"}
    found = {sides[part] for part in parts if part in sides}
    if any(part not in allowed and part not in sides and not part.isdigit() for part in parts) or len(found) > 1:
        return None
    if not found:
        return "lungs"
    return "left lung" if found == {"left lung"} else "right lung"


def is_airway(name: str) -> bool:
    """Say whether a segment is the trachea or the airways.

    >>> is_airway("lung_trachea_bronchia"), is_airway("airways and bronchi"), is_airway("left lung")
    (True, True, False)
    """
    return is_organ(name) and not _AIRWAY_WORDS.isdisjoint(words(name))
