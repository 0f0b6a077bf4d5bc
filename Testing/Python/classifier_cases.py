"""A patient with one follow-up whose every fact can be changed, for the tests of the flags."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ImmunoRadiomicsLib.analysis import (
    AlignmentQuality,
    AlignmentRecord,
    Definition,
    Kinetics,
    Lesion,
    LesionObservation,
    LungChange,
    LungMeasures,
    Response,
    TimepointRecord,
    Visit,
)
from ImmunoRadiomicsLib.study import Clinical, Study, Timepoint, Treatment

BASELINE_DATE = datetime.date(2024, 1, 10)
DAYS = {"baseline": 0, "followup-1": 62, "followup-2": 104, "followup-3": 160}

CLINICAL: Mapping[str, Any] = {
    "ecog": 1,
    "ldh": 310.0,
    "ldh_uln": 250.0,
    "albumin_g_l": 36.0,
    "neutrophils": 6.1,
    "leukocytes": 8.0,
    "lymphocytes": 1.2,
    "prior_thoracic_rt": False,
    "prior_radiation_pneumonitis": False,
    "ild": False,
    "respiratory_disease": False,
    "honeycombing": False,
    "ground_glass_attenuation": False,
    "histology": "adenocarcinoma",
    "metastatic_sites": 3,
    "liver_metastases": False,
    "setting": "real-world",
    "age": 64.0,
    "tmb": 8.0,
    "pdl1_percent": 40.0,
    "prior_systemic_therapy": True,
}


def study(
    *,
    tumour: str | None = "NSCLC",
    agents: tuple[str, ...] = ("pembrolizumab",),
    regimen: str | None = "PD-1",
    line: int | None = 2,
    start_day: int | None = 5,
    visits: int = 1,
    **clinical: Any,
) -> Study:
    """A study; keyword arguments beyond the named ones replace clinical facts."""
    names = list(DAYS)[: visits + 1]
    start = None if start_day is None else BASELINE_DATE + datetime.timedelta(days=start_day)
    return Study(
        "P001",
        tuple(Timepoint(name, BASELINE_DATE + datetime.timedelta(days=DAYS[name]), Path("ct.nrrd")) for name in names),
        tumour,
        Treatment(start, agents, regimen, line),
        Clinical(**{**CLINICAL, **clinical}),
    )


def timepoints(visits: int = 1, slice_mm: float = 1.25) -> tuple[TimepointRecord, ...]:
    return tuple(
        TimepointRecord(
            name,
            DAYS[name],
            (BASELINE_DATE + datetime.timedelta(days=DAYS[name])).isoformat(),
            (0.75, 0.75, slice_mm),
            (512, 512, 300),
            "given",
        )
        for name in list(DAYS)[: visits + 1]
    )


def lesion(
    identifier: str,
    sizes_mm: tuple[float | None, ...],
    *,
    organ: str = "lung",
    role: Any = "target",
    node: bool = False,
    **observation: Any,
) -> Lesion:
    """A lesion with one RECIST diameter per time point; None: not evaluated, 0: absent."""
    observations = []
    for name, size in zip(DAYS, sizes_mm, strict=False):
        if size is None:
            observations.append(LesionObservation(name, "not evaluated", "not evaluated"))
        elif size == 0:
            observations.append(LesionObservation(name, "absent", "absent"))
        else:
            facts = {
                "long_axis_mm": size * 1.4 if node else size,
                "short_axis_mm": size if node else size * 0.7,
                "volume_ml": 0.4 * size**3 / 1000,
                "voxels": 2000,
                "mean_hu": 40.0,
            }
            observations.append(LesionObservation(name, "measured", "present", **{**facts, **observation}))
    return Lesion(identifier, organ, "given", role, "given", node, tuple(observations))


def lungs(part: str = "both", **changes: Any) -> LungMeasures:
    facts = {
        "volume_ml": 4800.0,
        "mean_hu": -820.0,
        "sd_hu": 150.0,
        "skewness": 2.0,
        "kurtosis": 5.0,
        "percentile_15_hu": -930.0,
        "laa950_percent": 0.19,
        "haa_percent": 4.3,
        "ground_glass_ml": 40.0,
        "consolidation_ml": 8.0,
    }
    return LungMeasures("baseline", part, **{**facts, **changes})


def lung_change(glass_ml: float = 0.0, consolidation_ml: float = 0.0, **changes: Any) -> LungChange:
    facts = {
        "assessable": True,
        "reason": "",
        "new_ground_glass_ml": glass_ml,
        "new_consolidation_ml": consolidation_ml,
        "new_opacity_percent": 100 * (glass_ml + consolidation_ml) / 4800.0,
        "volume_ratio": 1.02,
    }
    return LungChange("followup-1", "baseline", changes.pop("part", "both"), **{**facts, **changes})


def visit(name: str = "followup-1", *, recist: str = "PD", irecist: str = "iUPD", **changes: Any) -> Visit:
    facts = {
        "sum_mm": 68.0,
        "baseline_mm": 50.0,
        "nadir_mm": 50.0,
        "target": "PD" if recist == "PD" else recist,
        "non_target": "NON-CR/NON-PD",
        "new_lesion": "no",
        "rule": "as built for the test",
    }
    return Visit(name, DAYS[name], recist=recist, irecist=irecist, **{**facts, **changes})


def response(*visits: Visit, label: Any = "not assessable") -> Response:
    pseudo = Definition(
        "pseudoprogression", "Pseudoprogression (iRECIST)", label, "as built for the test", {}, "Seymour 2017"
    )
    hyper = Definition(
        "matos2020", "Matos 2020", "no", "the sum grew by less than 40 %", {"sum_ratio": 1.36}, "Matos 2020"
    )
    return Response(visits, "PD", "PD", "iUPD", None, Kinetics(), (hyper,), (), pseudo, (), "")


def case(**changes: Any) -> dict[str, Any]:
    """Everything that ``assess`` takes but the study, which is under the key `study`."""
    visits = len(changes["response"].visits) if "response" in changes else 1
    facts = {
        "study": study(visits=visits),
        "timepoints": timepoints(visits),
        "lesions": (lesion("L1", (30.0, 42.0)), lesion("L2", (20.0, 26.0), organ="adrenal gland")),
        "lungs": (lungs(),),
        "lung_changes": (lung_change(),),
        "response": response(visit()),
        "alignments": tuple(
            AlignmentRecord(item.name, "baseline", "greedy", AlignmentQuality("good", ()))
            for item in timepoints(visits)[1:]
        ),
    }
    return {**facts, **changes}
