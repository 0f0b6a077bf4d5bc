"""One page about a cohort: responses, flags, quality and failures; it opens offline and prints in greyscale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..files import write_text
from ..order import software_version
from ..pipeline import RESEARCH_USE_ONLY
from ..response.plots import PatientResponse, cohort_plots
from .harmonised import HarmonisedCohort, HarmonisedPart
from .listing import Cohort
from .plots import scatter_plot, share_plot
from .summary import ScanSummary
from .tables import FLAGS, PatientResult
from .work import Outcome

_LEVELS = ("likely", "indeterminate", "unlikely", "not assessable")
_VERDICTS = ("good", "usable", "failed")
_CAPTIONS = {
    "waterfall": "Best change of the sum of diameters of each patient; dashed: the thresholds of response and progression.",
    "spider": "Change of the sum of diameters over time, a line for each patient.",
    "swimmer": "Response at each visit by iRECIST, a row for each patient.",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Cohort report</title><style>
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } th, td { border-bottom: 1px solid #ccc; padding: .25rem .7rem; text-align: left; vertical-align: top }
td.number { text-align: right } svg { max-width: 100%; height: auto } figure { margin: 0 0 1.5rem; break-inside: avoid } figcaption { color: #444 }
.notice { border: 2px solid #222; padding: .4rem .8rem; font-weight: 600 }
@page { margin: 15mm } @media print { body { margin: 0; max-width: none; font-size: 10pt } }
</style></head><body>
<h1>Cohort report</h1>
<p class="notice">{{ notice }}</p>
<p>{{ total }} patients: {{ done }} analysed, {{ failed | length }} could not be. ImmunoRadiomics {{ version }}.</p>
<h2>Response</h2>
{% for name, drawing in plots %}<figure role="img" aria-label="{{ captions[name] }}">{{ drawing | safe }}<figcaption>{{ captions[name] }}</figcaption></figure>
{% endfor %}
<h2>Best overall response</h2>
<table><thead><tr><th scope="col">Response</th><th scope="col">RECIST 1.1</th><th scope="col">RECIST 1.1, confirmed</th><th scope="col">iRECIST</th></tr></thead><tbody>
{% for letter, counts in best %}<tr><th scope="row">{{ letter }}</th>{% for count in counts %}<td class="number">{{ count }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
<h2>The three questions</h2>
<p>Number of patients by level. A level rests on a probability with its interval and on who the evidence is from: see flags.csv.</p>
<table><thead><tr><th scope="col">Question</th>{% for level in levels %}<th scope="col">{{ level }}</th>{% endfor %}</tr></thead><tbody>
{% for flag, counts in flags %}<tr><th scope="row">{{ flag }}</th>{% for count in counts %}<td class="number">{{ count }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
<h2>Quality</h2>
{% if scanners %}<table><caption>Scans by scanner</caption><thead><tr><th scope="col">Scanner</th><th scope="col">Scans</th><th scope="col">Voltage in kV</th><th scope="col">Kernel</th><th scope="col">Slice thickness in mm</th><th scope="col">Voxel in mm</th><th scope="col">With contrast</th></tr></thead><tbody>
{% for row in scanners %}<tr><th scope="row">{{ row[0] }}</th><td class="number">{{ row[1] }}</td>{% for cell in row[2:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>{% endif %}
<p>Alignment of the time points with their baseline: {% for verdict, count in verdicts %}{{ count }} {{ verdict }}{{ ", " if not loop.last }}{% endfor %}. Details of acquisition and alignment are in quality.csv.</p>
{% if harmonised %}<h2>Harmonisation by {{ harmonised.by }}</h2>
<p>features_harmonised.csv holds the features without the mark of the {{ harmonised.by }}; features.csv and training.csv stay as measured. {{ harmonised.without }} scans have no known {{ harmonised.by }} and stay as they were.
What batches differ in for another reason, such as their patients, is taken out as well. The whole cohort was harmonised at once: a model that is trained and tested on this table
has seen the patients that it is tested on. `train --harmonise` fits the correction inside its folds.</p>
<p>Scans: {% for name, count in harmonised.scans.items() %}{{ name }} {{ count }}{{ ", " if not loop.last }}{% else %}none{% endfor %}.</p>
{% for part, drawings in harmonised_plots %}<h3>Features of {{ part.name }}</h3><p>{{ part.note }}</p>
{% for caption, drawing in drawings %}<figure role="img" aria-label="{{ caption }}">{{ drawing | safe }}<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}{% endfor %}{% endif %}
<h2>Not analysed</h2>
{% if failed %}<table><thead><tr><th scope="col">Patient</th><th scope="col">Stage</th><th scope="col">Reason</th></tr></thead><tbody>
{% for item in failed %}<tr><td>{{ item.patient }}</td><td>{{ item.stage }}</td><td>{{ item.reason }}</td></tr>
{% endfor %}</tbody></table>{% else %}<p>None.</p>{% endif %}
</body></html>
"""


def write_page(
    cohort: Cohort,
    outcomes: dict[str, Outcome],
    finished: Sequence[PatientResult],
    path: Path,
    *,
    harmonised: HarmonisedCohort | None = None,
) -> None:
    """Write cohort.html."""
    import jinja2

    patients: list[PatientResponse] = []
    verdicts: Counter[str] = Counter()
    levels: dict[str, Counter[str]] = {flag: Counter() for flag in FLAGS}
    best: tuple[Counter[str], ...] = (Counter(), Counter(), Counter())
    for item in finished:
        found = item.summary
        patients.append((item.patient.patient, 0, found))
        verdicts.update(scan.alignment_verdict for scan in found.scans if scan.alignment_verdict)
        for flag in found.flags:
            levels[flag.flag][flag.level] += 1
        letters = (found.best_recist, found.best_recist_confirmed, found.best_irecist)
        for counter, letter in zip(best, letters, strict=True):
            counter[letter] += 1
    order = list(dict.fromkeys(letter for counter in best for letter in sorted(counter)))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(_PAGE).render(
        notice=RESEARCH_USE_ONLY,
        version=software_version(),
        total=len(cohort.patients),
        done=len(finished),
        failed=[outcomes[item.patient] for item in cohort.patients if outcomes[item.patient].status == "failed"],
        plots=[(name, drawing) for name, drawing in cohort_plots(patients).items()] if patients else [],
        captions=_CAPTIONS,
        best=[(letter, [counter[letter] for counter in best]) for letter in order],
        levels=_LEVELS,
        flags=[(flag, [levels[flag][level] for level in _LEVELS]) for flag in FLAGS],
        scanners=_scanners(finished),
        harmonised=harmonised,
        harmonised_plots=[(part, _drawings(part)) for part in (harmonised.parts if harmonised else ())],
        verdicts=[(verdict, verdicts[verdict]) for verdict in _VERDICTS],
    )
    write_text(path, text)


def _scanners(finished: Sequence[PatientResult]) -> list[tuple[str | int, ...]]:
    """Return a row per scanner: how many scans, and between which values they were made."""
    scans: dict[str, list[ScanSummary]] = {}
    for item in finished:
        for scan in item.summary.scans:
            scans.setdefault(scan.scanner or "not known", []).append(scan)
    rows: list[tuple[str | int, ...]] = []
    for name in sorted(scans):
        made = scans[name]
        voxels = {f"{scan.spacing_x_mm:g} x {scan.spacing_y_mm:g} x {scan.spacing_z_mm:g}" for scan in made}
        contrast = [scan.contrast for scan in made if scan.contrast is not None]
        rows.append(
            (
                name,
                len(made),
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


def _drawings(part: HarmonisedPart) -> list[tuple[str, str]]:
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
