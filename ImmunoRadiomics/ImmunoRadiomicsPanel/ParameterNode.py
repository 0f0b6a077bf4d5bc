"""What the user has chosen for one patient, kept in the scene."""

from __future__ import annotations

import enum
from typing import Annotated

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class Knowledge(enum.Enum):
    """An answer that may be unknown; unknown is never taken for no."""

    UNKNOWN = ""
    YES = "yes"
    NO = "no"

    def label(self) -> str:
        return {"": _("not known"), "yes": _("yes"), "no": _("no")}[self.value]


class Sex(enum.Enum):
    """Sex of the patient."""

    UNKNOWN = ""
    FEMALE = "female"
    MALE = "male"

    def label(self) -> str:
        return {"": _("not known"), "female": _("female"), "male": _("male")}[self.value]


class Smoking(enum.Enum):
    """Smoking history."""

    UNKNOWN = ""
    NEVER = "never"
    FORMER = "former"
    CURRENT = "current"

    def label(self) -> str:
        return {"": _("not known"), "never": _("never"), "former": _("former"), "current": _("current")}[self.value]


class CtdnaChange(enum.Enum):
    """Change of circulating tumor DNA since the baseline."""

    UNKNOWN = ""
    FAVOURABLE = "favourable"
    UNFAVOURABLE = "unfavourable"

    def label(self) -> str:
        texts = {"": _("not known"), "favourable": _("favorable"), "unfavourable": _("unfavorable")}
        return texts[self.value]


class Setting(enum.Enum):
    """Whether the patient was treated in a trial or in routine care."""

    UNKNOWN = ""
    TRIAL = "trial"
    REAL_WORLD = "real-world"

    def label(self) -> str:
        return {"": _("not known"), "trial": _("trial"), "real-world": _("routine care")}[self.value]


class Preset(enum.Enum):
    """Which radiomics are extracted from lesions."""

    FULL = "ct-lesion"
    FAST = "ct-lesion-fast"

    def label(self) -> str:
        return {"ct-lesion": _("full (ct-lesion)"), "ct-lesion-fast": _("fast (ct-lesion-fast)")}[self.value]


class AlignmentEngine(enum.Enum):
    """How follow-ups are aligned with the baseline."""

    AUTO = "auto"
    LOCAL_CORRELATION = "local-correlation"
    BRAINS = "brains"
    AFFINE = "affine"
    RIGID = "rigid"

    def label(self) -> str:
        texts = {
            "auto": _("automatic"),
            "local-correlation": _("deformable (local correlation)"),
            "brains": _("deformable (BRAINS, part of Slicer)"),
            "affine": _("affine"),
            "rigid": _("rigid"),
        }
        return texts[self.value]


@parameterNodeWrapper
class ImmunoRadiomicsParameterNode:
    """The choices for one patient. Numbers and dates that may be unknown are texts; empty means "not known".

    Time points and the meaning of segments are lists of rows; ``Timepoints`` keeps them in the same node. ``bundles`` has a
    folder in each line (``Bundles``).
    """

    patient: str
    tumor: str
    treatmentStart: str
    agents: str
    regimen: str
    line: str
    ecog: str
    age: str
    sex: Sex
    smoking: Smoking
    histology: str
    ldh: str
    ldhUpperLimit: str
    albumin: str
    neutrophils: str
    leukocytes: str
    lymphocytes: str
    tumorMutationalBurden: str
    pdl1: str
    metastaticSites: str
    liverMetastases: Knowledge
    priorThoracicRadiotherapy: Knowledge
    priorRadiationPneumonitis: Knowledge
    interstitialLungDisease: Knowledge
    interstitialLungAbnormality: Knowledge
    honeycombing: Knowledge
    groundGlassAttenuation: Knowledge
    respiratoryDisease: Knowledge
    priorSystemicTherapy: Knowledge
    symptomsWorse: Knowledge
    ctdnaChange: CtdnaChange
    setting: Setting
    bundles: str
    preset: Preset
    alignmentEngine: AlignmentEngine
    jobs: Annotated[int, WithinRange(1, 64)] = 1
