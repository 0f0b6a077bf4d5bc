"""What a patient is: a study of time points with images, contours, a treatment and clinical facts."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

LesionRole = Literal["target", "non-target"]


@dataclass(frozen=True)
class Treatment:
    """The immunotherapy. Everything is optional."""

    start: datetime.date | None = None
    agents: tuple[str, ...] = ()
    regimen: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class Clinical:
    """What the images cannot tell. Everything is optional; None means "not known", never "no".

    Units: LDH and its upper limit of normal in U/L, albumin in g/L, blood cells in 10^9/L, tumour mutational burden in
    mutations/Mb, PD-L1 tumour proportion score in %.
    """

    ecog: int | None = None
    ldh: float | None = None
    ldh_uln: float | None = None
    albumin_g_l: float | None = None
    neutrophils: float | None = None
    leukocytes: float | None = None
    lymphocytes: float | None = None
    prior_thoracic_rt: bool | None = None
    ild: bool | None = None
    smoking: Literal["never", "former", "current"] | None = None
    histology: str | None = None
    ctdna_change: Literal["favourable", "unfavourable"] | None = None
    metastatic_sites: int | None = None
    liver_metastases: bool | None = None
    setting: Literal["trial", "real-world"] | None = None
    prior_radiation_pneumonitis: bool | None = None
    respiratory_disease: bool | None = None
    interstitial_lung_abnormality: bool | None = None
    honeycombing: bool | None = None
    ground_glass_attenuation: bool | None = None
    age: float | None = None
    sex: Literal["female", "male"] | None = None
    tmb: float | None = None
    pdl1_percent: float | None = None
    prior_systemic_therapy: bool | None = None
    symptoms_worse: bool | None = None


@dataclass(frozen=True)
class LesionSpec:
    """What one segment is, in the words of whoever drew it."""

    segment: str
    organ: str | None = None
    role: LesionRole | None = None
    node: bool | None = None


@dataclass(frozen=True)
class Timepoint:
    """One imaging date. ``segmentation`` None means: propagate the baseline contours."""

    name: str
    date: datetime.date
    ct: Path
    segmentation: Path | None = None
    pet: Path | None = None
    no_visible_lesions: bool = False


@dataclass(frozen=True)
class Study:
    """A patient's time points in the order of their dates."""

    patient: str
    timepoints: tuple[Timepoint, ...]
    tumour: str | None = None
    treatment: Treatment = field(default_factory=Treatment)
    clinical: Clinical = field(default_factory=Clinical)
    lesions: tuple[LesionSpec, ...] = ()

    @property
    def baseline(self) -> Timepoint:
        """The reference time point: the one named `baseline`, else the last before treatment, else the first."""
        for timepoint in self.timepoints:
            if timepoint.name == "baseline":
                return timepoint
        start = self.treatment.start
        before = [timepoint for timepoint in self.timepoints if start is not None and timepoint.date <= start]
        return before[-1] if before else self.timepoints[0]

    def day(self, timepoint: Timepoint) -> int:
        """Days from the baseline scan to a time point; negative before it."""
        return (timepoint.date - self.baseline.date).days
