"""Virtual patients with known truth: the sample data, and what the tests measure against."""

from __future__ import annotations

from .patient import VirtualPatient, VirtualTimepoint, simulate_patient
from .scenario import (
    LesionPlan,
    Lungs,
    Motion,
    Scenario,
    TimepointPlan,
    demo_scenario,
    prior_scan,
    random_motion,
    random_scenario,
)
from .store import simulate_cohort, write_patient
from .truth import Truth, TruthLabel, TruthLesion, TruthObservation, TruthTimepoint

__all__ = [
    "LesionPlan",
    "Lungs",
    "Motion",
    "Scenario",
    "TimepointPlan",
    "Truth",
    "TruthLabel",
    "TruthLesion",
    "TruthObservation",
    "TruthTimepoint",
    "VirtualPatient",
    "VirtualTimepoint",
    "demo_scenario",
    "prior_scan",
    "random_motion",
    "random_scenario",
    "simulate_cohort",
    "simulate_patient",
    "write_patient",
]
