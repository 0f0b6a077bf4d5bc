"""A made-up patient with plausible numbers, and simple images that fit it, for tests of what reads an Analysis."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk

from ImmunoRadiomicsLib.analysis import (
    SCHEMA_VERSION,
    AlignmentQuality,
    AlignmentRecord,
    Analysis,
    ContextScore,
    Definition,
    Evidence,
    FeatureDelta,
    Features,
    Flag,
    Kinetics,
    Lesion,
    LesionObservation,
    LungChange,
    LungMeasures,
    Provenance,
    Response,
    StageRecord,
    TimepointRecord,
    Visit,
)
from ImmunoRadiomicsLib.images import Segmentation, segmentation_from_arrays

DAYS = {"prebaseline": -51, "baseline": 0, "followup-1": 62, "followup-2": 98}
DATES = {
    "prebaseline": "2023-11-20",
    "baseline": "2024-01-10",
    "followup-1": "2024-03-12",
    "followup-2": "2024-04-17",
}

# Long axis (mm) per time point; None: not there. Centres are baseline LPS mm: x runs to the patient's left, z to the head.
LESIONS = {
    "L1": ("lung", "target", False, (-72.0, 8.0, 52.0), (34.0, 38.4, 46.1, 51.8)),
    "L2": ("lung", "target", False, (78.0, 22.0, -38.0), (18.2, 19.0, 17.1, 12.4)),
    "N1": ("mediastinal lymph node", "target", True, (12.0, -18.0, 36.0), (21.0, 23.5, 27.0, 31.2)),
    "H1": ("liver", "non-target", False, (-60.0, 0.0, -118.0), (14.0, 15.1, 15.6, 16.0)),
    "L5": ("lung", "new-target", False, (62.0, -20.0, 60.0), (None, None, None, 14.3)),
}
SHORT_OVER_LONG = 0.74


def _ends(centre: np.ndarray, direction: tuple[float, float], length: float):
    half = np.array([*direction, 0.0]) * length / 2
    return tuple(map(float, centre - half)), tuple(map(float, centre + half))


def movement(timepoint: str) -> sitk.Transform:
    """Baseline LPS points to the points of a time point."""
    angle, shift = {
        "prebaseline": (-0.02, (3.0, 2.0, -5.0)),
        "baseline": (0.0, (0.0, 0.0, 0.0)),
        "followup-1": (0.03, (6.0, -4.0, 8.0)),
        "followup-2": (-0.04, (-9.0, 5.0, -6.0)),
    }[timepoint]
    return sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.0, 0.0, angle, shift)


def _observation(lesion: str, timepoint: str) -> LesionObservation:
    _, _, _, reference, sizes = LESIONS[lesion]
    size = sizes[list(DAYS).index(timepoint)]
    if size is None:
        return LesionObservation(
            timepoint=timepoint,
            status="absent",
            event="absent",
            long_axis_mm=0.0,
            short_axis_mm=0.0,
            volume_ml=0.0,
            centroid_reference_lps_mm=reference,
        )
    centre = np.array(movement(timepoint).TransformPoint(reference))
    short = size * SHORT_OVER_LONG
    new = lesion == "L5"
    return LesionObservation(
        timepoint=timepoint,
        status="measured",
        event="baseline" if timepoint == "baseline" else "new" if new else "present",
        segments=(lesion,),
        confidence=None if timepoint == "baseline" or new else 0.97,
        check="grown into the hilum: see that the contour leaves the vessels out"
        if (lesion, timepoint) == ("L1", "followup-2")
        else None,
        long_axis_mm=size,
        short_axis_mm=short,
        volume_ml=4 / 3 * np.pi * (size / 2) * (short / 2) ** 2 / 1000,
        mean_hu=28.4 if lesion != "H1" else 71.2,
        sd_hu=31.7,
        voxels=int(size * short**2 * 0.74),
        slice_index=120,
        long_axis_ends_lps_mm=_ends(centre, (0.8, 0.6), size),
        short_axis_ends_lps_mm=_ends(centre, (-0.6, 0.8), short),
        centroid_lps_mm=tuple(map(float, centre)),
        centroid_reference_lps_mm=reference,
        local_alignment=0.93,
    )


def _lesions() -> tuple[Lesion, ...]:
    return tuple(
        Lesion(
            id=name,
            organ=organ,
            organ_source="given",
            role=role,
            role_reason="largest measurable lesion of its organ" if role == "target" else "as given",
            node=node,
            observations=tuple(_observation(name, timepoint) for timepoint in DAYS),
        )
        for name, (organ, role, node, _, _) in LESIONS.items()
    )


def _sum(timepoint: str) -> float:
    index = list(DAYS).index(timepoint)
    return sum(
        sizes[index] * (SHORT_OVER_LONG if node else 1.0)
        for _, role, node, _, sizes in LESIONS.values()
        if role == "target"
    )


def _response() -> Response:
    baseline, first, second = (_sum(name) for name in ("baseline", "followup-1", "followup-2"))
    visits = (
        Visit(
            timepoint="followup-1",
            day=62,
            sum_mm=first,
            baseline_mm=baseline,
            nadir_mm=baseline,
            target="SD",
            non_target="non-CR/non-PD",
            new_lesion="no",
            recist="SD",
            irecist="iSD",
            rule=f"Sum {first:.1f} mm, +{100 * (first / baseline - 1):.0f} % over the nadir: neither PR nor PD, so target SD.",
            irecist_rule="No progression by RECIST 1.1: iSD.",
            change_from_baseline_percent=100 * (first / baseline - 1),
            change_from_nadir_percent=100 * (first / baseline - 1),
            probability_of_progression=0.21,
        ),
        Visit(
            timepoint="followup-2",
            day=98,
            sum_mm=second,
            baseline_mm=baseline,
            nadir_mm=baseline,
            target="SD",
            non_target="non-CR/non-PD",
            new_lesion="yes",
            recist="PD",
            irecist="iUPD",
            rule="A new lesion (L5, lung, 14 mm): PD whatever the targets.",
            irecist_rule="First progression, by a new lesion: iUPD, to be confirmed.",
            confirmation="Scan again between day 126 and day 154 (2024-05-15 and 2024-06-12). Growth of the new lesion sum by at least 5 mm (to "
            "19 mm or more), another new lesion, target or non-target progression would give iCPD.",
            new_lesion_sum_mm=14.3,
            change_from_baseline_percent=100 * (second / baseline - 1),
            change_from_nadir_percent=100 * (second / baseline - 1),
            probability_of_progression=0.88,
        ),
    )
    hyperprogression = (
        Definition(
            "champiat2017",
            "Champiat 2017: TGR ratio",
            "no",
            "No PD at the first evaluation.",
            {"tgr_ratio": 1.18, "threshold": 2.0},
            "doi:10.1158/1078-0432.CCR-16-1741",
        ),
        Definition(
            "saada_bouzid2017",
            "Saâda-Bouzid 2017: TGK ratio",
            "no",
            "TGK ratio 1.05 is below 2.",
            {"tgk_ratio": 1.05, "threshold": 2.0},
            "doi:10.1093/annonc/mdx178",
        ),
        Definition(
            "kato2017",
            "Kato 2017: burden and pace",
            "not assessable",
            "The time to treatment failure is not known.",
            {"time_to_failure_days": None},
            "doi:10.1158/1078-0432.CCR-16-3133",
        ),
        Definition(
            "lo_russo2019",
            "Lo Russo 2019: three of five",
            "no",
            "1 of 4 assessable criteria.",
            {"criteria_met": 1.0, "criteria_needed": 3.0},
            "doi:10.1158/1078-0432.CCR-18-1390",
        ),
        Definition(
            "matos2020",
            "Matos 2020",
            "no",
            "The sum rose by 9.7 mm at day 62; day 56 is the latest.",
            {"increase_mm": 9.7},
            "doi:10.1136/jitc-2019-000172",
        ),
    )
    return Response(
        visits=visits,
        best_recist="SD",
        best_recist_confirmed="SD",
        best_irecist="iSD",
        progression_day=None,
        kinetics=Kinetics(
            tgr_reference_percent_per_month=17.9,
            tgr_experimental_percent_per_month=21.1,
            tgr_ratio=1.18,
            tgr_difference_percent_per_month=3.2,
            tgk_reference_mm_per_month=4.2,
            tgk_experimental_mm_per_month=4.4,
            tgk_ratio=1.05,
            doubling_time_days=110.2,
            volume_growth_reference_percent_per_month=20.3,
            volume_growth_experimental_percent_per_month=26.8,
            warnings=("The interval before the baseline is 51 days; growth rates over short intervals are unsteady.",),
        ),
        hyperprogression=hyperprogression,
        dissociated=(
            Definition(
                "bernard_tessier2020",
                "Dissociated response (Bernard-Tessier 2020)",
                "yes",
                "L2 shrank by 35 % while N1 grew by 33 %.",
                {"largest_decrease_percent": -34.7, "largest_increase_percent": 34.9},
                "doi:10.1016/j.ejca.2020.03.006",
            ),
        ),
        pseudoprogression=Definition(
            "iupd_not_confirmed",
            "Unconfirmed progression followed by stability or response",
            "not assessable",
            "The last visit is iUPD; a later scan decides.",
            {},
            "doi:10.1016/S1470-2045(17)30074-8",
        ),
        warnings=("3 target lesions in 2 organs: the largest of five per patient and two per organ were taken.",),
        narrative=f"Sum of diameters {second:.0f} mm; +{100 * (second / baseline - 1):.0f} % and +{second - baseline:.0f} mm over nadir "
        f"({baseline:.0f} mm, 2024-01-10): target SD. One new lesion (L5, lung, 14 mm). Overall RECIST 1.1: PD. iRECIST: iUPD "
        "(first, driven by a new lesion). Confirmation CT 4 to 8 weeks after this scan (between 2024-05-15 and 2024-06-12). "
        "Pseudoprogression can be neither confirmed nor excluded on this scan.",
    )


def _flags(response: Response) -> tuple[Flag, ...]:
    laleh = "doi:10.1371/journal.pcbi.1009822"
    return (
        Flag(
            flag="pseudoprogression",
            question="Will a later scan fail to confirm this progression?",
            status="assessed",
            probability=0.118,
            lower=0.052,
            upper=0.241,
            prior=0.15,
            prior_lower=0.08,
            prior_upper=0.26,
            prior_source="18 trials, 60 of 287 unconfirmed progressions, PMID 32749204",
            level="unlikely",
            bundle="pseudoprogression-evidence",
            bundle_version="1.0",
            applicability="caution",
            reason="Progression is driven by a new lesion; the growth model was fitted on single target lesions, so its weight is halved.",
            evidence=(
                Evidence("Growth at progression", "+16 % over nadir", 0.41, 0.05, 0.80, "used", laleh),
                Evidence("New lesion", "1 (14 mm)", -0.55, -1.20, 0.05, "used", "PMID 32995974"),
                Evidence("Day of progression", "day 98", -0.13, -0.40, 0.15, "used", laleh),
                Evidence("Size at baseline", "38 mm", 0.0, None, None, "grouped", laleh, "counted with growth"),
                Evidence(
                    "ctDNA change", "not entered", 0.0, None, None, "missing", "PMID 29423503", "would weigh most"
                ),
                Evidence(
                    "Radiomics (simulation-trained)",
                    "0.31",
                    0.0,
                    None,
                    None,
                    "context",
                    "trained on simulated patients",
                ),
            ),
            counterfactuals=(
                "A favourable ctDNA change would raise the probability to 0.62.",
                "Without the new lesion it would be 0.19.",
            ),
            definitions=(response.pseudoprogression, *response.dissociated),
        ),
        Flag(
            flag="hyperprogression",
            question="Is the course, or may it become, hyperprogression?",
            status="assessed",
            probability=0.274,
            lower=0.143,
            upper=0.452,
            prior=0.132,
            prior_lower=0.112,
            prior_upper=0.154,
            prior_source="41 studies, 6,009 patients (Zhao 2022)",
            level="indeterminate",
            bundle="hyperprogression-evidence",
            bundle_version="1.0",
            applicability="applicable",
            reason="NSCLC on a PD-1 inhibitor with ECOG, LDH and sites known: inside what the bundle was made for.",
            evidence=(
                Evidence(
                    "LDH above normal",
                    "310 U/L (limit 250)",
                    0.62,
                    0.21,
                    1.02,
                    "used",
                    "doi:10.1186/s12885-020-07206-4",
                ),
                Evidence("Liver metastases", "yes", 0.71, 0.30, 1.15, "used", "doi:10.1186/s12885-020-07206-4"),
                Evidence(
                    "Growth ratio", "TGR ratio 1.18", -0.42, -0.90, 0.02, "used", "doi:10.1158/1078-0432.CCR-16-1741"
                ),
                Evidence("RMH score", "2", 0.0, None, None, "grouped", "PMID 33760090", "same cause as LDH and sites"),
            ),
            counterfactuals=("With a normal LDH the probability would be 0.17.",),
            definitions=response.hyperprogression,
        ),
        Flag(
            flag="pneumonitis",
            question="Do the lungs show, or risk, pneumonitis?",
            status="not assessable",
            probability=None,
            lower=None,
            upper=None,
            prior=0.16,
            prior_lower=0.14,
            prior_upper=0.18,
            prior_source="real-world cohorts, doi:10.1159/000526141",
            level="not assessable",
            bundle="pneumonitis-evidence",
            bundle_version="1.0",
            applicability="not assessable",
            reason="The lungs hold 24 % less air at follow-up-2 than at baseline: density cannot be compared.",
            evidence=(Evidence("Pre-existing ILD", "no", 0.0, None, None, "context", "doi:10.1159/000526141"),),
        ),
    )


def _features() -> tuple[tuple[Features, ...], tuple[FeatureDelta, ...]]:
    random = np.random.default_rng(7)
    names = [
        *(f"original_firstorder_{name}" for name in ("Mean", "Entropy", "Skewness", "Kurtosis", "90Percentile")),
        *(f"original_glcm_{name}" for name in ("Contrast", "Correlation", "JointEnergy", "Idm")),
        *(f"original_shape_{name}" for name in ("MeshVolume", "Sphericity")),
        *(f"wavelet-LLL_glcm_{name}" for name in ("Contrast", "ClusterShade")),
        "log-sigma-3-mm-3D_firstorder_Mean",
    ]
    features, deltas = [], []
    for lesion in LESIONS:
        for region in ("core", "ring-0-5mm", "ring-5-10mm"):
            earlier: dict[str, float | None] = {}
            for timepoint, day in DAYS.items():
                if LESIONS[lesion][4][list(DAYS).index(timepoint)] is None:
                    continue
                values: dict[str, float | None] = {name: float(random.normal(10, 6)) for name in names}
                values["original_glcm_Correlation"] = None
                features.append(Features(timepoint, lesion, region, 4321, None, values))
                if timepoint == "baseline":
                    earlier = values
                elif timepoint.startswith("followup") and earlier:
                    changed: dict[str, tuple[float | None, float | None, float | None]] = {}
                    for name, value in values.items():
                        start = earlier[name]
                        change = None if value is None or start is None else value - start
                        changed[name] = (
                            change,
                            None if change is None or not start else change / abs(start),
                            None if change is None else change / day * 30.4375,
                        )
                    deltas.append(FeatureDelta(lesion, region, "baseline", timepoint, day, None, changed))
    features.append(Features("followup-2", "L5", "border", 3, "3 voxels are fewer than the 64 that texture needs"))
    deltas.append(FeatureDelta("L5", "core", "baseline", "followup-2", 98, "not there at baseline"))
    return tuple(features), tuple(deltas)


def _lungs() -> tuple[tuple[LungMeasures, ...], tuple[LungChange, ...]]:
    measures, changes = [], []
    for timepoint in DAYS:
        for part, share in (("both", 1.0), ("right", 0.54), ("left", 0.46)):
            air = 0.76 if timepoint == "followup-2" else 1.0
            measures.append(
                LungMeasures(
                    timepoint=timepoint,
                    part=part,
                    volume_ml=4870.0 * share * air,
                    mean_hu=-842.0 + 60 * (1 - air) * 4,
                    sd_hu=121.0,
                    skewness=2.9,
                    kurtosis=11.4,
                    percentile_15_hu=-915.0,
                    laa950_percent=3.1,
                    haa_percent=4.6 / air,
                    ground_glass_ml=88.0 * share,
                    consolidation_ml=12.0 * share,
                )
            )
            if timepoint == "followup-1":
                changes.append(LungChange(timepoint, "baseline", part, True, "", 21.4 * share, 2.2 * share, 0.48, 0.99))
            elif timepoint == "followup-2":
                changes.append(
                    LungChange(
                        timepoint,
                        "baseline",
                        part,
                        False,
                        "lung volume ratio 0.76 is outside 0.85 to 1.15",
                        None,
                        None,
                        None,
                        0.76,
                    )
                )
    return tuple(measures), tuple(changes)


def example_analysis(**changes: object) -> Analysis:
    """A whole Analysis of a made-up patient with four scans; keyword arguments replace its fields."""
    response = _response()
    features, deltas = _features()
    lungs, lung_changes = _lungs()
    analysis = Analysis(
        schema_version=SCHEMA_VERSION,
        research_use_only="Research use only. Not a medical device; not for diagnosis or treatment decisions.",
        patient="P001",
        tumour="NSCLC",
        baseline="baseline",
        treatment_start_day=5,
        timepoints=tuple(
            TimepointRecord(name, day, DATES[name], (0.75, 0.75, 1.25), (512, 512, 300), "given")
            for name, day in DAYS.items()
        ),
        alignments=(
            AlignmentRecord(
                "prebaseline",
                "baseline",
                "local correlation",
                AlignmentQuality(
                    "usable",
                    ("12 % of the body is outside the other scan",),
                    1.6,
                    0.31,
                    0.86,
                    0.90,
                    61.0,
                    0.971,
                    0.964,
                    0.0,
                    0.11,
                    0.48,
                    14.0,
                ),
            ),
            AlignmentRecord(
                "followup-1",
                "baseline",
                "local correlation",
                AlignmentQuality("good", (), 1.1, 0.28, 0.91, 0.94, 48.2, 0.987, 0.981, 0.0, 0.08, 0.31, 17.4),
            ),
            AlignmentRecord(
                "followup-2",
                "baseline",
                "local correlation",
                AlignmentQuality(
                    "failed",
                    ("lung overlap 0.88 is below 0.90", "the lungs hold 24 % less air"),
                    4.2,
                    0.22,
                    0.71,
                    0.69,
                    102.5,
                    0.88,
                    0.95,
                    0.002,
                    0.9,
                    4.1,
                    38.0,
                ),
            ),
        ),
        lesions=_lesions(),
        lungs=lungs,
        lung_changes=lung_changes,
        preset="ct-1mm-fbw25",
        features=features,
        deltas=deltas,
        response=response,
        flags=_flags(response),
        context=(
            ContextScore(
                "loris", "LORIS (NSCLC form)", None, "", "TMB and PD-L1 are not known", "Chang 2024, Nature Cancer"
            ),
            ContextScore("lipi", "LIPI", 1.0, "intermediate", "", "point score; cut-offs not re-read"),
        ),
        warnings=("The contrast phase of followup-2 is not known; HU may not be comparable.",),
        provenance=Provenance(
            software="ImmunoRadiomics",
            version="0.1.0",
            created="2026-11-22T16:00:00Z",
            python="3.11.9",
            platform="Linux x86_64",
            packages={"numpy": "2.4.6", "SimpleITK": "2.5.7", "radiomics": "3.1.4"},
            inputs_sha256={"ct1.nrrd": "ab" * 32, "ct2.nrrd": "cd" * 32, "study.yaml": "ef" * 32},
            stages=(
                StageRecord("align", 57.3, 31.0, False, "01" * 32, {"engine": "own", "levels": 3}),
                StageRecord("extract", 44.1, 24.7, True, "23" * 32, {"preset": "ct-1mm-fbw25"}),
            ),
            seed=1,
        ),
    )
    return dataclasses.replace(analysis, **changes)  # type: ignore[arg-type]


def example_images(
    spacing: float = 4.0, directions: Mapping[str, np.ndarray] | None = None
) -> tuple[dict[str, sitk.Image], dict[str, Segmentation], dict[str, sitk.Transform]]:
    """CT, segmentations and transforms that fit ``example_analysis``: body, two lungs, heart, liver, spine and the lesions.

    ``directions`` gives a time point's image direction (3x3, columns are the axes); others are axial.
    """
    volumes, segmentations, transforms = {}, {}, {}
    random = np.random.default_rng(3)
    for index, timepoint in enumerate(DAYS):
        direction = np.asarray((directions or {}).get(timepoint, np.eye(3)), dtype=float)
        half = np.array([180.0, 135.0, 165.0])
        # The grid is turned about the middle of the chest; its extent follows the turned axes.
        extent = np.abs(direction.T) @ (2 * half)
        size = np.ceil(extent / spacing).astype(int)
        origin = -direction @ ((size - 1) / 2 * spacing)
        image = sitk.Image(size.tolist(), sitk.sitkInt16)
        image.SetSpacing([spacing] * 3)
        image.SetOrigin(origin.tolist())
        image.SetDirection(direction.ravel().tolist())
        steps = [np.arange(count) * spacing for count in size]
        grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
        here = grid @ direction.T + origin
        inverse = movement(timepoint).GetInverse()
        matrix = np.array(inverse.GetMatrix()).reshape(3, 3)
        offset = np.array(inverse.TransformPoint((0.0, 0.0, 0.0)))
        there = here @ matrix.T + offset  # where each voxel is in the baseline

        def ellipsoid(centre, radii, where=there):
            return (((where - np.array(centre)) / np.array(radii)) ** 2).sum(axis=-1) < 1

        ct = np.full(there.shape[:3], -1000.0)
        ct[(there[..., 0] / 165) ** 2 + (there[..., 1] / 115) ** 2 < 1] = -95
        ct[(there[..., 0] / 150) ** 2 + (there[..., 1] / 102) ** 2 < 1] = 45
        for side in (-1, 1):
            ct[ellipsoid((side * 74, 0, 15), (56, 82, 118))] = -845
        ct[ellipsoid((18, -28, -20), (52, 48, 58))] = 120
        ct[ellipsoid((-55, -5, -128), (88, 85, 62))] = 95
        ct[((there[..., 0]) ** 2 + (there[..., 1] - 72) ** 2) < 17**2] = 320
        masks = []
        for lesion, (_, _, _, centre, sizes) in LESIONS.items():
            long_axis = sizes[index]
            if long_axis is None:
                continue
            middle = np.array(movement(timepoint).TransformPoint(centre))
            away = here - middle
            short = long_axis * SHORT_OVER_LONG
            along, across = away[..., :2] @ np.array([0.8, 0.6]), away[..., :2] @ np.array([-0.6, 0.8])
            mask = (2 * along / long_axis) ** 2 + (2 * across / short) ** 2 + (2 * away[..., 2] / short) ** 2 < 1
            ct[mask] = 35 if lesion != "N1" else 60
            masks.append((lesion, mask.T))
        ct += random.normal(0, 14, ct.shape)
        filled = sitk.GetImageFromArray(np.rint(ct.T).astype(np.int16))
        filled.CopyInformation(image)
        volumes[timepoint] = filled
        segmentations[timepoint] = segmentation_from_arrays(masks, filled)
        if timepoint != "baseline":
            transforms[timepoint] = movement(timepoint)
    return volumes, segmentations, transforms


def example_opacities(volumes: Mapping[str, sitk.Image]) -> dict[str, Segmentation]:
    """What is new in the lungs at followup-1 of ``example_images``: a ball of ground glass in the right lung, and nothing solid."""
    image = volumes["followup-1"]
    centre = np.array(movement("followup-1").TransformPoint((-70.0, 10.0, 30.0)))
    index = np.stack(np.indices(image.GetSize()[::-1])[::-1], axis=-1).astype(float)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    points = np.array(image.GetOrigin()) + (index * image.GetSpacing()) @ direction.T
    glass = np.linalg.norm(points - centre, axis=-1) < 24.0
    named = (("new ground-glass", glass), ("new consolidation", glass & False))
    return {"followup-1": segmentation_from_arrays(named, image)}
