"""What the stages hand on to each other, and the one object that an analysis is.

Everything here is plain and immutable: numbers, words and tuples, no images and no transforms. Lengths are in
millimetres, volumes in millilitres, densities in HU, positions in patient coordinates (LPS), times in days since the
baseline scan. ``None`` means "not known"; it never stands for zero or for "no".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .study import Acquisition

SCHEMA_VERSION = "1.0"

Point = tuple[float, float, float]

Verdict = Literal["good", "usable", "failed"]
LesionStatus = Literal["measured", "absent", "too small", "merged", "not evaluated"]
LesionEvent = Literal["baseline", "present", "new", "vanished", "absent", "split", "merged", "not evaluated"]
Answer = Literal["yes", "no", "not assessable"]
StageName = Literal["align", "lesions", "extract", "respond", "flag", "analyze"]
Level = Literal["unlikely", "indeterminate", "likely", "yes", "no", "not assessable"]


@dataclass(frozen=True)
class AlignmentQuality:
    """How well a follow-up lies on the baseline, measured after the alignment.

    ``correlation`` is the mean local (windowed) correlation of the two images, ``folding_fraction`` the share of voxels
    in the body with a non-positive Jacobian determinant, ``inverse_consistency_*`` the distance from a point carried
    there and back. ``expected_error_mm`` is an estimate of the median error inside the lungs, or inside the body where there
    are no lungs. ``score`` says in one number (0 to 1) how surely the scans belong together and lie on each other: below 0.5
    something speaks against it.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    expected_error_mm: float | None = None
    correlation_before: float | None = None
    correlation: float | None = None
    lung_correlation: float | None = None
    residual_hu: float | None = None
    lung_dice: float | None = None
    body_dice: float | None = None
    folding_fraction: float | None = None
    inverse_consistency_median_mm: float | None = None
    inverse_consistency_p95_mm: float | None = None
    maximum_displacement_mm: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class AlignmentRecord:
    """The alignment of one time point with the reference time point (the baseline)."""

    timepoint: str
    reference: str
    engine: str
    quality: AlignmentQuality
    transform_file: str | None = None
    inverse_transform_file: str | None = None


@dataclass(frozen=True)
class LocalFit:
    """How well two aligned scans lie on each other around one place.

    ``correlation`` (0 to 1) is their local correlation. ``shift_mm`` is how far the follow-up would have to be moved there to
    fit clearly better, 0 where it fits best as it lies. Both are None where the scans share no structure to judge by.
    """

    correlation: float | None
    shift_mm: float | None


@dataclass(frozen=True)
class LesionObservation:
    """One lesion at one time point.

    ``segments`` are the names in that time point's segmentation (several where a lesion has split). ``merged_into`` is
    the id of the lesion that carries the conglomerate's measurements. ``confidence`` (0 to 1) is that of the link to
    the lesion's earlier observation. ``check`` is set, with a reason, where a person should look. ``local_alignment`` (0 to 1)
    is the local correlation with the aligned baseline, ``local_shift_mm`` how far this scan would have to be moved to fit clearly
    better there, 0 where it fits best as it lies; None where that cannot be judged.
    """

    timepoint: str
    status: LesionStatus
    event: LesionEvent
    segments: tuple[str, ...] = ()
    source: Literal["given", "propagated"] = "given"
    merged_into: str | None = None
    confidence: float | None = None
    check: str | None = None
    long_axis_mm: float | None = None
    short_axis_mm: float | None = None
    volume_ml: float | None = None
    mean_hu: float | None = None
    sd_hu: float | None = None
    voxels: int | None = None
    slice_index: int | None = None
    long_axis_ends_lps_mm: tuple[Point, Point] | None = None
    short_axis_ends_lps_mm: tuple[Point, Point] | None = None
    centroid_lps_mm: Point | None = None
    centroid_reference_lps_mm: Point | None = None
    local_alignment: float | None = None
    local_shift_mm: float | None = None


@dataclass(frozen=True)
class Lesion:
    """One tumour followed over time; ``id`` never changes. ``organ_source`` is `given` or `proposed`."""

    id: str
    organ: str
    organ_source: Literal["given", "proposed"]
    role: Literal["target", "non-target", "new-target", "new-non-target"]
    role_reason: str
    node: bool
    observations: tuple[LesionObservation, ...]

    def at(self, timepoint: str) -> LesionObservation | None:
        """Return the observation at a time point, or None where there is none."""
        return next((item for item in self.observations if item.timepoint == timepoint), None)


@dataclass(frozen=True)
class LungMeasures:
    """Densitometry of one lung region at one time point, tumours, airways and large vessels left out.

    ``part`` is `both`, `left`, `right` or `<side>-upper|middle|lower` (thirds by height). ``laa950_percent`` is the share below
    -950 HU (low attenuation area), ``haa_percent`` that between -600 and -250 HU (high attenuation area).
    """

    timepoint: str
    part: str
    volume_ml: float
    mean_hu: float
    sd_hu: float
    skewness: float
    kurtosis: float
    percentile_15_hu: float
    laa950_percent: float
    haa_percent: float
    ground_glass_ml: float
    consolidation_ml: float


@dataclass(frozen=True)
class LungChange:
    """What is new in the lungs at a follow-up against the patient's own baseline, registered and volume-corrected.

    ``map_file`` is the segmentation of what is new, on the grid of the follow-up, relative to the output folder; it is
    named with the part `both` alone, and None where the comparison is withheld.
    """

    timepoint: str
    reference: str
    part: str
    assessable: bool
    reason: str
    new_ground_glass_ml: float | None = None
    new_consolidation_ml: float | None = None
    new_opacity_percent: float | None = None
    volume_ratio: float | None = None
    map_file: str | None = None


@dataclass(frozen=True)
class Features:
    """The radiomics of one region at one time point; ``lesion`` is None for the lungs.

    ``values`` is empty and ``reason`` says why where the region could not be measured. A single feature that is not
    defined for the region is None.
    """

    timepoint: str
    lesion: str | None
    region: str
    voxels: int
    reason: str | None
    values: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureDelta:
    """The change of every feature of one region between two time points.

    ``values`` maps a feature to (absolute, relative, per month). Relative is the absolute change over the magnitude of
    the earlier value; from zero it is 0 to zero and None to anything else. A month is 30.4375 days.
    """

    lesion: str | None
    region: str
    earlier: str
    later: str
    days: int
    reason: str | None
    values: dict[str, tuple[float | None, float | None, float | None]] = field(default_factory=dict)
    # The natural logarithm of later over earlier; None where they have no common sign.
    log_ratios: dict[str, float | None] = field(default_factory=dict)
    # Why the change is to be read with care although it could be measured: the scans do not lie well on each other at this lesion,
    # or how well they do could not be judged.
    caution: str | None = None


@dataclass(frozen=True)
class Visit:
    """The response at one visit, by both criteria, with the rules that fired."""

    timepoint: str
    day: int
    sum_mm: float | None
    baseline_mm: float | None
    nadir_mm: float | None
    target: str
    non_target: str
    new_lesion: str
    recist: str
    irecist: str
    rule: str
    irecist_rule: str = ""
    confirmation: str = ""
    new_lesion_sum_mm: float | None = None
    change_from_baseline_percent: float | None = None
    change_from_nadir_percent: float | None = None
    probability_of_progression: float | None = None
    probability_of_response: float | None = None
    probability_of_further_growth: float | None = None


@dataclass(frozen=True)
class Kinetics:
    """How fast the burden grew before and after the baseline.

    TGR is the tumour growth rate in % volume per month, TGK the tumour growth kinetics in mm per month; ``reference`` is
    before the baseline and ``experimental`` from baseline to the first evaluation. None is "not assessable".
    """

    tgr_reference_percent_per_month: float | None = None
    tgr_experimental_percent_per_month: float | None = None
    tgr_ratio: float | None = None
    tgr_difference_percent_per_month: float | None = None
    tgk_reference_mm_per_month: float | None = None
    tgk_experimental_mm_per_month: float | None = None
    tgk_ratio: float | None = None
    doubling_time_days: float | None = None
    volume_growth_reference_percent_per_month: float | None = None
    volume_growth_experimental_percent_per_month: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Definition:
    """One published definition of an atypical pattern and its answer here."""

    id: str
    title: str
    answer: Answer
    reason: str
    numbers: dict[str, float | None]
    source: str


@dataclass(frozen=True)
class Response:
    """The response criteria, growth and atypical patterns of one patient."""

    visits: tuple[Visit, ...]
    best_recist: str
    best_recist_confirmed: str
    best_irecist: str
    progression_day: int | None
    kinetics: Kinetics
    hyperprogression: tuple[Definition, ...]
    dissociated: tuple[Definition, ...]
    pseudoprogression: Definition
    warnings: tuple[str, ...]
    narrative: str


@dataclass(frozen=True)
class Evidence:
    """One contribution to a flag, in log-odds.

    ``use`` is `used` (it moved the probability), `context` (shown, weight 0), `missing` (it would have counted) or
    `grouped` (a stronger item of the same cause was used instead).
    """

    name: str
    value: str
    log_odds: float
    lower: float | None
    upper: float | None
    use: Literal["used", "context", "missing", "grouped"]
    source: str
    note: str = ""


@dataclass(frozen=True)
class Flag:
    """The answer to one of the three questions.

    ``lower`` and ``upper`` bound the central 90 % of the probability; ``prior`` is the probability before this patient's
    evidence, with its own bounds and source. ``applicability`` is `applicable`, `caution` or `not assessable`.
    """

    flag: Literal["pseudoprogression", "hyperprogression", "pneumonitis"]
    question: str
    status: Literal["assessed", "not assessable"]
    probability: float | None
    lower: float | None
    upper: float | None
    prior: float | None
    prior_lower: float | None
    prior_upper: float | None
    prior_source: str
    level: Level
    bundle: str
    bundle_version: str
    applicability: Literal["applicable", "caution", "not assessable"]
    reason: str
    evidence: tuple[Evidence, ...] = ()
    counterfactuals: tuple[str, ...] = ()
    definitions: tuple[Definition, ...] = ()


@dataclass(frozen=True)
class ContextScore:
    """A published score shown beside the flags; it answers none of the three questions."""

    id: str
    title: str
    value: float | None
    reading: str
    reason: str
    source: str


@dataclass(frozen=True)
class TimepointRecord:
    """What is known of one imaging date."""

    name: str
    day: int
    date: str
    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]
    segmentation: Literal["given", "propagated", "none"]
    pet: bool = False
    acquisition: Acquisition | None = None


@dataclass(frozen=True)
class StageRecord:
    """How one stage ran: its time, whether its result was reused, and the hashes of its inputs."""

    name: str
    cpu_seconds: float
    wall_seconds: float
    reused: bool
    inputs_sha256: str
    settings: dict[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """What made the result, so that it can be made again.

    ``run_sha256`` names everything that the result depends on; ``files_sha256`` the result's files, in provenance.json only.
    ``presets`` holds every setting of the radiomics of lesions, of the lungs and of images beside the CT: each the text of a JSON
    parameter file, which ``--preset`` takes.
    """

    software: str
    version: str
    created: str
    python: str
    platform: str
    packages: dict[str, str]
    inputs_sha256: dict[str, str]
    stages: tuple[StageRecord, ...]
    seed: int
    settings: dict[str, str | int | float | bool | None] = field(default_factory=dict)
    presets: dict[str, str] = field(default_factory=dict)
    code_sha256: str = ""
    run_sha256: str = ""
    files_sha256: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Analysis:
    """Everything that was found out about one patient: one object, one JSON file."""

    schema_version: str
    research_use_only: str
    patient: str
    tumour: str | None
    baseline: str
    treatment_start_day: int | None
    timepoints: tuple[TimepointRecord, ...]
    alignments: tuple[AlignmentRecord, ...]
    lesions: tuple[Lesion, ...]
    lungs: tuple[LungMeasures, ...]
    lung_changes: tuple[LungChange, ...]
    preset: str
    features: tuple[Features, ...]
    deltas: tuple[FeatureDelta, ...]
    response: Response
    flags: tuple[Flag, ...]
    context: tuple[ContextScore, ...]
    warnings: tuple[str, ...]
    provenance: Provenance


@dataclass(frozen=True)
class StageResult:
    """What is known after a stage that was run alone: the file stage.json."""

    schema_version: str
    research_use_only: str
    patient: str
    stage: StageName
    timepoints: tuple[TimepointRecord, ...]
    alignments: tuple[AlignmentRecord, ...] = ()
    lesions: tuple[Lesion, ...] = ()
    lungs: tuple[LungMeasures, ...] = ()
    lung_changes: tuple[LungChange, ...] = ()
    features: tuple[Features, ...] = ()
    deltas: tuple[FeatureDelta, ...] = ()
    response: Response | None = None
    flags: tuple[Flag, ...] = ()
    context: tuple[ContextScore, ...] = ()
    warnings: tuple[str, ...] = ()
