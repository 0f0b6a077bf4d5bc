"""Codes of what is exported: SNOMED CT, DCM and UMLS where they have a code, the private scheme 99IMMRAD where they have none.

The private scheme (designator 99IMMRAD, named in each report's coding scheme identification) has these codes:

============  =========================================  ============================================================
Value         Meaning                                    Use
============  =========================================  ============================================================
RECIST11      Overall response by RECIST 1.1             concept name; doi:10.1016/j.ejca.2008.10.026
CR PR SD PD   the response itself                        value of RECIST11
NCRNPD NE     non-CR/non-PD, not evaluable               value of RECIST11
IRECIST       Overall response by iRECIST                concept name; doi:10.1016/S1470-2045(17)30074-8
ICR IPR ISD   iCR, iPR, iSD                              value of IRECIST
IUPD ICPD     unconfirmed and confirmed progression      value of IRECIST
INCRNUPD NE   non-iCR/non-iUPD, not evaluable            value of IRECIST
SUM           Sum of target diameters                    concept name of a measurement in mm
NEWT NEWNT    New target, new non-target lesion          finding category (iRECIST)
STATUS        Status of a lesion                         concept name
MEASURED ...  measured, absent, too small, merged,       value of STATUS
              not evaluated
============  =========================================  ============================================================
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

PRIVATE_SCHEME = "99IMMRAD"
PRIVATE_SCHEME_NAME = "ImmunoRadiomics response codes"
# Every UID that the export derives from words is a version 5 UUID in this name space (DICOM PS3.5, annex B.2).
_NAMESPACE = uuid.UUID("6f0d7c4e-3c0f-5a86-9d15-2b6a1b8c7e55")

_ORGANS = (
    (("lymph", "node", "nodal"), ("59441001", "Lymph node")),
    (("adrenal",), ("23451007", "Adrenal gland")),
    (("pleura",), ("3120008", "Pleura")),
    (("chest wall",), ("78904004", "Chest wall")),
    (("mediastin",), ("72410000", "Mediastinum")),
    (("lung", "pulmon"), ("39607008", "Lung")),
    (("liver", "hepatic"), ("10200004", "Liver")),
    (("kidney", "renal"), ("64033007", "Kidney")),
    (("spleen", "splenic"), ("78961009", "Spleen")),
    (("pancrea",), ("15776009", "Pancreas")),
    (("brain", "cerebr"), ("12738006", "Brain")),
    (("bone", "rib", "spine", "vertebra", "skelet", "sternum"), ("3138006", "Bone")),
    (("soft tissue", "muscle", "subcutan"), ("87784001", "Soft tissue")),
    (("skin",), ("39937001", "Skin")),
    (("abdom", "periton"), ("818983003", "Abdomen")),
)
_TARGET_RESPONSES = {
    "CR": ("112041", "Target Lesion Complete Response"),
    "PR": ("112042", "Target Lesion Partial Response"),
    "PD": ("112043", "Target Lesion Progressive Disease"),
    "SD": ("112044", "Target Lesion Stable Disease"),
}
_NON_TARGET_RESPONSES = {
    "CR": ("112045", "Non-Target Lesion Complete Response"),
    "non-CR/non-PD": ("112046", "Non-Target Lesion Incomplete Response or Stable Disease"),
    "PD": ("112047", "Non-Target Lesion Progressive Disease"),
}
_RECIST = {
    "CR": ("CR", "Complete response"),
    "PR": ("PR", "Partial response"),
    "SD": ("SD", "Stable disease"),
    "PD": ("PD", "Progressive disease"),
    "NON-CR/NON-PD": ("NCRNPD", "Non-complete response, non-progressive disease"),
    "NE": ("NE", "Not evaluable"),
}
_IRECIST = {
    "ICR": ("ICR", "iCR, complete response"),
    "IPR": ("IPR", "iPR, partial response"),
    "ISD": ("ISD", "iSD, stable disease"),
    "IUPD": ("IUPD", "iUPD, unconfirmed progressive disease"),
    "ICPD": ("ICPD", "iCPD, confirmed progressive disease"),
    "NON-ICR/NON-IUPD": ("INCRNUPD", "non-iCR/non-iUPD"),
    "NE": ("NE", "Not evaluable"),
}
_CATEGORIES = {
    "target": ("112074", "DCM", "Target Lesion at Baseline"),
    "non-target": ("112075", "DCM", "Non-Target Lesion at Baseline"),
    "new-target": ("NEWT", PRIVATE_SCHEME, "New target lesion (iRECIST)"),
    "new-non-target": ("NEWNT", PRIVATE_SCHEME, "New non-target lesion (iRECIST)"),
}


def code(value: str, scheme: str, meaning: str) -> Code:
    """Return a coded term."""
    from pydicom.sr.coding import Code

    return Code(value, scheme, meaning)


def private(value: str, meaning: str) -> Code:
    """Return a term of the private scheme."""
    return code(value, PRIVATE_SCHEME, meaning)


def organ_code(organ: str) -> Code | None:
    """Return the SNOMED CT code of an organ named in words, None where it is not among those known."""
    words = organ.lower()
    for parts, (value, meaning) in _ORGANS:
        if any(part in words for part in parts):
            return code(value, "SCT", meaning)
    return None


def finding_code(*, node: bool) -> Code:
    """Return what a segment is: a mass, or an enlarged lymph node."""
    return code("30746006", "SCT", "Lymphadenopathy") if node else code("4147007", "SCT", "Mass")


def category_code(role: str) -> Code:
    """Return the class of a lesion in the response criteria."""
    return code(*_CATEGORIES[role])


def target_response_code(word: str) -> Code | None:
    """Return the response of the target lesions (CID 6144), None where there is no code for it."""
    found = _TARGET_RESPONSES.get(word)
    return None if found is None else code(found[0], "DCM", found[1])


def non_target_response_code(word: str) -> Code | None:
    """Return the response of the non-target lesions (CID 6144), None where there is no code for it."""
    found = _NON_TARGET_RESPONSES.get(word)
    return None if found is None else code(found[0], "DCM", found[1])


def recist_code(word: str) -> Code | None:
    """Return the overall response by RECIST 1.1 in the private scheme."""
    found = _RECIST.get(word.upper())
    return None if found is None else private(*found)


def irecist_code(word: str) -> Code | None:
    """Return the overall response by iRECIST in the private scheme."""
    found = _IRECIST.get(word.upper())
    return None if found is None else private(*found)


def status_code(status: str) -> Code:
    """Return the status of a lesion in the private scheme."""
    return private(status.upper().replace(" ", ""), status.capitalize())


def derived_uid(*words: str) -> str:
    """Return the UID that always stands for these words."""
    return f"2.25.{uuid.UUID(derived_uuid(*words)).int}"


def derived_uuid(*words: str) -> str:
    """Return the UUID that always stands for these words."""
    return str(uuid.uuid5(_NAMESPACE, chr(31).join(words)))
