"""What the stages before have found out about one patient, and the questions that all three flags ask of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..analysis import (
    AlignmentRecord,
    FeatureDelta,
    Features,
    Lesion,
    LesionObservation,
    LungChange,
    LungMeasures,
    Response,
    TimepointRecord,
)
from ..organs import organ_group
from ..study import Study

DAYS_PER_MONTH = 30.4375
# RECIST 1.1: a lesion that is seen but too small to measure counts 5 mm (doi:10.1016/j.ejca.2008.10.026).
TOO_SMALL_MM = 5.0

_PD1 = frozenset(
    [
        "pembrolizumab",
        "nivolumab",
        "cemiplimab",
        "dostarlimab",
        "tislelizumab",
        "toripalimab",
        "sintilimab",
        "camrelizumab",
    ]
)
_PDL1 = frozenset(["atezolizumab", "durvalumab", "avelumab", "envafolimab", "sugemalimab"])
_CTLA4 = frozenset(["ipilimumab", "tremelimumab"])
_EITHER = re.compile(r"pd[- ]?\(l\)[- ]?1")


@dataclass(frozen=True)
class Case:
    """One patient: the study and the results of the earlier stages."""

    study: Study
    timepoints: tuple[TimepointRecord, ...]
    lesions: tuple[Lesion, ...]
    lungs: tuple[LungMeasures, ...]
    lung_changes: tuple[LungChange, ...]
    response: Response
    alignments: tuple[AlignmentRecord, ...]
    features: tuple[Features, ...] = ()
    deltas: tuple[FeatureDelta, ...] = ()
    seed: int = 0

    @property
    def baseline(self) -> str:
        """Name of the reference time point."""
        return self.study.baseline.name

    @property
    def nsclc(self) -> bool | None:
        """Whether the tumour is a non-small-cell lung cancer; None where no tumour is entered."""
        if self.study.tumour is None:
            return None
        text = _words(self.study.tumour)
        if "nsclc" in text or "non small cell" in text:
            return True
        types = f"{text} {_words(self.study.clinical.histology or '')}"
        return "lung" in text.split() and any(kind in types for kind in ("adenocarcinoma", "squamous", "large cell"))

    @property
    def melanoma(self) -> bool:
        """Whether the tumour is a melanoma."""
        return self.study.tumour is not None and "melanoma" in _words(self.study.tumour)

    @property
    def squamous(self) -> bool | None:
        """Whether the histology is squamous; None where none is entered."""
        if self.study.clinical.histology is None:
            return None
        text = _words(self.study.clinical.histology)
        return re.search(r"\bsquamous\b", text) is not None and re.search(r"\bnon ?squamous\b", text) is None

    @property
    def treatment_start_day(self) -> int | None:
        """Days from the baseline scan to the start of treatment; None where it is not entered."""
        start = self.study.treatment.start
        return None if start is None else (start - self.study.baseline.date).days

    @property
    def targets_of_drugs(self) -> frozenset[str]:
        """Which of PD-1, PD-L1 and CTLA-4 the treatment blocks, by its regimen and its agents."""
        treatment = self.study.treatment
        names = {word for text in (*treatment.agents, treatment.regimen or "") for word in _words(text).split()}
        written = (treatment.regimen or "").lower()
        found = set()
        # PD-(L)1 is the one or the other; an agent says which.
        if _EITHER.search(written) and not names & (_PD1 | _PDL1):
            found |= {"PD-1", "PD-L1"}
        regimen = f" {_words(_EITHER.sub(' ', written))} "
        if names & _PD1 or re.search(r" (anti )?pd ?1 ", regimen):
            found.add("PD-1")
        if names & _PDL1 or re.search(r" (anti )?pd ?l ?1 ", regimen):
            found.add("PD-L1")
        if names & _CTLA4 or re.search(r" (anti )?ctla ?4 ", regimen):
            found.add("CTLA-4")
        return frozenset(found)

    @property
    def baseline_lungs(self) -> LungMeasures | None:
        """Both lungs at baseline; None where no lungs were found."""
        return next((item for item in self.lungs if item.timepoint == self.baseline and item.part == "both"), None)

    @property
    def baseline_lesions(self) -> tuple[Lesion, ...]:
        """The lesions that are seen at baseline."""
        return tuple(item for item in self.lesions if (size_mm(item, item.at(self.baseline)) or 0) > 0)

    @property
    def organs(self) -> tuple[str, ...]:
        """Organs with a lesion at baseline, as RECIST counts them: paired organs and lobes are one, all nodes are one."""
        return tuple(sorted({organ_group(item.organ, node=item.node) for item in self.baseline_lesions}))

    def timepoints_from_baseline_to(self, name: str) -> Sequence[TimepointRecord]:
        """Return the time points from the baseline to the named one, in the order of their days."""
        by_name = {item.name: item for item in self.timepoints}
        first, last = by_name[self.baseline].day, by_name[name].day
        return sorted((item for item in self.timepoints if first <= item.day <= last), key=lambda item: item.day)


def size_mm(lesion: Lesion, observation: LesionObservation | None) -> float | None:
    """Return the RECIST diameter of one observation: the short axis of a node, else the long axis; None if not evaluated."""
    if observation is None or observation.status in ("not evaluated", "merged"):
        return None
    if observation.status == "absent":
        return 0.0
    size = observation.short_axis_mm if lesion.node else observation.long_axis_mm
    if size is None:
        return TOO_SMALL_MM if observation.status == "too small" else None
    return size


def _words(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))
