"""What a segment's name says: an organ, a lung, an airway, or something else (then it is a lesion).

Knows the class names of TotalSegmentator (`lung_upper_lobe_left`, `vertebrae_T12`, `rib_left_3`), of Lung CT Analyzer and of
people (`Left lung`, `LiverSegment 4`, `RightKidney`). A name that speaks of a tumour is a lesion whatever organ it
names: `lung nodule`, `Liver metastasis 2`, `kidney_tumor`.
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
    abdomen abdominal adrenal airway airways anus aorta appendix arm artery arteries atrial atrium autochthon axilla azygos
    background bladder blood body bone bones bowel brachiocephalic brain breast breasts bronchi bronchus bronchia
    carotid cartilage cartilages caecum cecum cava chest clavicle clavicula clavicles colon coronary costal diaphragm disc
    duodenum esophagus oesophagus external eye face fat femur femurs fibula fissure foot gallbladder gland gluteus hand
    extremities effusion head heart hilum hip hips humerus ileum iliac iliacus iliopsoas intestine jejunum kidney kidneys larynx liver lobe lung lungs lv
    mandible marrow mediastinum muscle muscles myocardium neck nerve organ organs ovary pancreas parotid patella pectoral
    pelvis pericardial pericardium pharynx pleura pleural portal prostate psoas pulmonary radius rectum rib ribs sacrum scapula
    scapulas sigmoid skeletal skeleton skin skull spine spinal spleen splenic sternum stomach subclavian subcutaneous table
    thorax thoracic thyroid tibia tissue torso trachea trunc trunk ulna ureter urinary uterus vein veins vena venous ventricle
    vertebra vertebrae vertebral vessel vessels
    """
)

# Words that say where or what about an organ, and are no finding by themselves.
_NEUTRAL_WORDS = _word_set(
    """
    left right upper lower middle inferior superior anterior posterior l r lt rt main small large outer inner both all
    of the and segment segmentation mask contour appendage common cord cyst cysts deep maximus medius minimus soft total label
    tree central wall content lumen filled region area volume minus without
    """
)

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
    """Say whether a segment's name is that of an organ or a body part: every word of it has to be one, or a side or number.

    >>> [is_organ(name) for name in ("lung_upper_lobe_left", "vertebrae_T12", "rib_left_3", "Liver")]
    [True, True, True, True]
    >>> [is_organ(name) for name in ("L1", "lung nodule", "Segment_1", "Liver metastasis")]
    [False, False, False, False]
    """
    parts = words(name)
    if any(part in _LESION_WORDS for part in parts) or "lymph" in parts:
        return False
    known = [part for part in parts if part in _ORGAN_WORDS]
    if not known:
        return False
    spinal = any(part.startswith("vertebra") or part in ("disc", "spine") for part in known)
    return all(
        part in _ORGAN_WORDS or part in _NEUTRAL_WORDS or part.isdigit() or (spinal and _SPINE.match(part))
        for part in parts
    )


def lung_part(name: str) -> LungPart | None:
    """Return which lung a segment is or belongs to, None where it is no lung.

    >>> [lung_part(name) for name in ("lung_middle_lobe_right", "Left lung", "lungs", "lung vessels", "lung nodule")]
    ['right lung', 'left lung', 'lungs', None, None]
    >>> lung_part("right upper lobe")
    'right lung'
    """
    parts = words(name)
    lobe = "lobe" in parts and any(part in ("upper", "middle", "lower") for part in parts)
    if not is_organ(name) or not (lobe or "lung" in parts or "lungs" in parts):
        return None
    allowed = {"lung", "lungs", "lobe", "both", "mask", "segmentation", "upper", "middle", "lower", "total"}
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

    >>> is_airway("lung_trachea_bronchia"), is_airway("trachea"), is_airway("left lung")
    (True, True, False)
    """
    return is_organ(name) and any(
        part in ("trachea", "airway", "airways", "bronchi", "bronchia") for part in words(name)
    )
