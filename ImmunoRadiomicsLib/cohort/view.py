"""What the page and the printed report of a cohort show, counted once from the summaries of its patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..response.plots import PatientResponse
from .harmonised import HarmonisedCohort, HarmonisedPart
from .listing import Cohort
from .plots import scatter_plot, share_plot
from .summary import ScanSummary
from .tables import FLAGS, PatientResult
from .work import Outcome

LEVELS = ("likely", "indeterminate", "unlikely", "not assessable")
VERDICTS = ("good", "usable", "failed")
CAPTIONS = {
    "waterfall": "Best change of the sum of diameters of each patient; dashed: the thresholds of response and progression.",
    "spider": "Change of the sum of diameters over time, a line for each patient.",
    "swimmer": "Response at each visit by iRECIST, a row for each patient.",
    "flags": "Number of patients by level. A level rests on a probability with its interval and on who the evidence is from: see flags.csv.",
}
SCANNER_COLUMNS = (
    "Scanner",
    "Scans",
    "Voltage in kV",
    "Kernel",
    "Slice thickness in mm",
    "Voxel in mm",
    "With contrast",
)


@dataclass(frozen=True)
class CohortView:
    """Counts of a cohort.

    ``best`` counts patients by response letter: RECIST 1.1, RECIST 1.1 confirmed, iRECIST. ``levels`` counts them by question and level,
    ``verdicts`` the time points by how well they lie on the baseline. ``scanners`` has a row per scanner under ``SCANNER_COLUMNS``.
    """

    total: int
    failed: tuple[Outcome, ...]
    patients: tuple[PatientResponse, ...]
    best: tuple[tuple[str, tuple[int, int, int]], ...]
    levels: dict[str, dict[str, int]]
    verdicts: dict[str, int]
    scanners: tuple[tuple[str, ...], ...]
    harmonised: HarmonisedCohort | None

    @property
    def headline(self) -> str:
        """How many patients there are, in a sentence."""
        return f"{self.total} patients: {self.total - len(self.failed)} analysed, {len(self.failed)} could not be."

    @property
    def alignment(self) -> str:
        """How well time points lie on their baseline, in a sentence."""
        counts = ", ".join(f"{self.verdicts[verdict]} {verdict}" for verdict in VERDICTS)
        return f"Alignment of the time points with their baseline: {counts}. Details of acquisition and alignment are in quality.csv."

    @property
    def harmonisation(self) -> str:
        """What was harmonised and what that must not be used for, in sentences; empty where nothing was."""
        if self.harmonised is None:
            return ""
        by, scans = self.harmonised.by, self.harmonised.scans
        counts = ", ".join(f"{name} {count}" for name, count in scans.items()) or "none"
        return (
            f"features_harmonised.csv holds the features without the mark of the {by}; features.csv and training.csv stay as measured. Scans: {counts}; "
            f"{self.harmonised.without} scans have no known {by} and stay as they were. What batches differ in for another reason, such as their patients, "
            "is taken out as well. The whole cohort was harmonised at once: a model that is trained and tested on this table has seen the "
            "patients that it is tested on. The option --harmonise of `train` fits the correction inside its folds."
        )


def view_of(
    cohort: Cohort,
    outcomes: dict[str, Outcome],
    finished: Sequence[PatientResult],
    harmonised: HarmonisedCohort | None,
) -> CohortView:
    """Count what the reports of a cohort show."""
    verdicts: Counter[str] = Counter()
    levels: dict[str, Counter[str]] = {flag: Counter() for flag in FLAGS}
    best: tuple[Counter[str], Counter[str], Counter[str]] = (Counter(), Counter(), Counter())
    for item in finished:
        found = item.summary
        verdicts.update(scan.alignment_verdict for scan in found.scans if scan.alignment_verdict)
        for flag in found.flags:
            levels[flag.flag][flag.level] += 1
        letters = (found.best_recist, found.best_recist_confirmed, found.best_irecist)
        for counter, letter in zip(best, letters, strict=True):
            counter[letter] += 1
    order = dict.fromkeys(letter for counter in best for letter in sorted(counter))
    return CohortView(
        total=len(cohort.patients),
        failed=tuple(outcomes[item.patient] for item in cohort.patients if outcomes[item.patient].status == "failed"),
        patients=tuple((item.patient.patient, 0, item.summary) for item in finished),
        best=tuple((letter, (best[0][letter], best[1][letter], best[2][letter])) for letter in order),
        levels={flag: {level: levels[flag][level] for level in LEVELS} for flag in FLAGS},
        verdicts={verdict: verdicts[verdict] for verdict in VERDICTS},
        scanners=tuple(_scanners(finished)),
        harmonised=harmonised,
    )


def harmonisation_drawings(part: HarmonisedPart) -> list[tuple[str, str]]:
    """Return the plots of one part with what each shows; none where nothing was done."""
    if len(part.batches) < 2:
        return []
    return [
        (
            f"Each mark is one of the {part.name} at a time point, by batch: its place in the first two principal components.",
            scatter_plot(part),
        ),
        ("Number of features by the share of their variance that lies between batches.", share_plot(part)),
    ]


def _scanners(finished: Sequence[PatientResult]) -> list[tuple[str, ...]]:
    """Return a row per scanner: how many scans, and between which values they were made."""
    scans: dict[str, list[ScanSummary]] = {}
    for item in finished:
        for scan in item.summary.scans:
            scans.setdefault(scan.scanner or "not known", []).append(scan)
    rows: list[tuple[str, ...]] = []
    for name in sorted(scans):
        made = scans[name]
        voxels = {f"{scan.spacing_x_mm:.3g} x {scan.spacing_y_mm:.3g} x {scan.spacing_z_mm:.3g}" for scan in made}
        contrast = [scan.contrast for scan in made if scan.contrast is not None]
        rows.append(
            (
                name,
                str(len(made)),
                _span([scan.kvp for scan in made]),
                ", ".join(sorted({scan.kernel for scan in made if scan.kernel})),
                _span([scan.slice_thickness_mm for scan in made]),
                next(iter(voxels)) if len(voxels) == 1 else f"{len(voxels)} different",
                f"{sum(contrast)} of {len(contrast)}" if contrast else "",
            )
        )
    return rows


def _span(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{min(known):g}" if min(known) == max(known) else f"{min(known):g} to {max(known):g}"
