"""Many patients: the same pipeline for each, on local processes or a Dask cluster, and tables of all of them."""

from __future__ import annotations

from .listing import Cohort, CohortPatient, read_cohort
from .loading import CohortTables, load_cohort
from .run import CohortResult, run

__all__ = ["Cohort", "CohortPatient", "CohortResult", "CohortTables", "load_cohort", "read_cohort", "run"]
