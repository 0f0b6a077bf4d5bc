"""What a lesion looks like in the scene: the colour of its course and its standard code."""

from __future__ import annotations

from enum import Enum

from ..analysis import Analysis, Lesion, LesionObservation

# The levels of a flag that colour what they explain.
RAISED = frozenset({"likely", "yes"})
# A lesion's course uses the thresholds of RECIST 1.1 on the one lesion (doi:10.1016/j.ejca.2008.10.026).
GROWTH_RATIO, GROWTH_MM, SHRINKAGE_RATIO = 1.2, 5.0, 0.7


class Course(Enum):
    """How a lesion has gone from the baseline to its last assessed follow-up, and the colour that says so.

    The size is the long axis, for lymph nodes the short axis. `growing`: at least 20 % and 5 mm above the smallest earlier size
    since baseline; `shrinking`: at least 30 % below baseline, or gone; `stable`: neither; `new`: not there at baseline.
    A growing or new lesion takes the colour of the flag that explains it where that flag is `likely` or `yes` (of
    two, the more probable one). Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
    """

    SHRINKING = "shrinking"
    STABLE = "stable"
    GROWING = "growing"
    NEW = "new"
    PSEUDOPROGRESSION = "growing or new, pseudoprogression likely"
    HYPERPROGRESSION = "growing or new, hyperprogression likely"
    NOT_EVALUATED = "not evaluated"

    @property
    def colour(self) -> tuple[float, float, float]:
        """Red, green and blue from 0 to 1."""
        return _COURSE_COLOURS[self]


_COURSE_COLOURS = {
    Course.SHRINKING: (0.0, 0.62, 0.45),
    Course.STABLE: (0.94, 0.89, 0.26),
    Course.GROWING: (0.84, 0.37, 0.0),
    Course.NEW: (0.34, 0.71, 0.91),
    Course.PSEUDOPROGRESSION: (0.8, 0.47, 0.65),
    Course.HYPERPROGRESSION: (0.6, 0.0, 0.0),
    Course.NOT_EVALUATED: (0.6, 0.6, 0.6),
}
# Lungs are shown in the usual colour of lung, or in a warning colour where pneumonitis is likely.
LUNG_COLOUR, PNEUMONITIS_COLOUR = (0.77, 0.65, 0.57), (0.90, 0.62, 0.0)


def observed_size_mm(lesion: Lesion, observation: LesionObservation | None) -> float | None:
    """Return the long axis, or for a node the short axis, in mm; 0 where the lesion is absent and None where it was not assessed."""
    if observation is None or observation.status in {"merged", "not evaluated"}:
        return None
    if observation.status == "absent":
        return 0.0
    return observation.short_axis_mm if lesion.node else observation.long_axis_mm


def lesion_course(lesion: Lesion, analysis: Analysis) -> Course:
    """Return how a lesion has gone, in the words and colours of ``Course``."""
    days = {record.name: record.day for record in analysis.timepoints}
    later = sorted(
        (item for item in lesion.observations if days[item.timepoint] > 0), key=lambda item: days[item.timepoint]
    )
    start = observed_size_mm(lesion, lesion.at(analysis.baseline))
    sizes = [size for item in later if (size := observed_size_mm(lesion, item)) is not None]
    if not sizes:
        return Course.NOT_EVALUATED
    if not start:
        is_new = any(item.event == "new" for item in later)
        return _explained(Course.NEW, analysis) if is_new and sizes[-1] > 0 else Course.NOT_EVALUATED
    nadir = min([start, *sizes[:-1]])
    if sizes[-1] - nadir >= GROWTH_MM and sizes[-1] >= GROWTH_RATIO * nadir:
        return _explained(Course.GROWING, analysis)
    return Course.SHRINKING if sizes[-1] <= SHRINKAGE_RATIO * start else Course.STABLE


def _explained(course: Course, analysis: Analysis) -> Course:
    patterns = {"pseudoprogression": Course.PSEUDOPROGRESSION, "hyperprogression": Course.HYPERPROGRESSION}
    raised = [flag for flag in analysis.flags if flag.flag in patterns and flag.level in RAISED]
    return patterns[max(raised, key=lambda flag: flag.probability or 0.0).flag] if raised else course


_LESION = ("SCT^49755003^Morphologically Altered Structure", "SCT^4147007^Mass")
_ANATOMY = "SCT^123037004^Anatomical Structure"
_SIDES = {"right": "SCT^24028007^Right", "left": "SCT^7771000^Left"}
_TYPES = "Segmentation category and type - DICOM master list"
_REGIONS = "Anatomic codes - DICOM master list"

# SNOMED CT body structures by the words that organs are named with; the first word that is found counts.
_ORGANS = {
    "lymph node": "SCT^59441001^Lymph node",
    "pleura": "SCT^3120008^Pleura",
    "lung": "SCT^39607008^Lung",
    "liver": "SCT^10200004^Liver",
    "mediastin": "SCT^72410000^Mediastinum",
    "adrenal": "SCT^23451007^Adrenal gland",
    "kidney": "SCT^64033007^Kidney",
    "spleen": "SCT^78961009^Spleen",
    "pancreas": "SCT^15776009^Pancreas",
    "brain": "SCT^12738006^Brain",
    "bone": "SCT^272673000^Bone",
    "soft tissue": "SCT^87784001^Soft tissue",
    "heart": "SCT^80891009^Heart",
    "pericard": "SCT^76848001^Pericardium",
    "peritone": "SCT^83670000^Peritoneal cavity",
    "thyroid": "SCT^69748006^Thyroid",
    "stomach": "SCT^69695003^Stomach",
    "esophag": "SCT^32849002^Esophagus",
    "colon": "SCT^71854001^Colon",
}


def _entry(category: str, kind: str, modifier: str, region: str) -> str:
    """Return a terminology entry in the words of Slicer: seven fields, each code as scheme, value and meaning."""
    return "~".join((_TYPES, category, kind, modifier or "^^", _REGIONS, region or "^^", "^^"))


def lesion_terminology(lesion: Lesion) -> str:
    """Return the terminology entry of a lesion: a mass, in the organ where that has a code."""
    organ = "lymph node" if lesion.node else lesion.organ.lower()
    region = next((code for word, code in _ORGANS.items() if word in organ), "")
    return _entry(*_LESION, "", region)


def lung_terminology(segment: str) -> str:
    """Return the terminology entry of a segment that is a lung or both."""
    side = next((code for word, code in _SIDES.items() if word in segment.lower()), "")
    return _entry(_ANATOMY, _ORGANS["lung"], side, "")
