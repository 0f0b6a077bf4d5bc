"""One page about a cohort: responses, flags, quality and failures; it opens offline and prints in greyscale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..files import write_text
from ..order import software_version
from ..pipeline import RESEARCH_USE_ONLY
from ..response.plots import PatientResponse, cohort_plots
from .listing import Cohort
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
<p>Alignment of the time points with their baseline: {% for verdict, count in verdicts %}{{ count }} {{ verdict }}{{ ", " if not loop.last }}{% endfor %}. Details of acquisition and alignment are in quality.csv.</p>
<h2>Not analysed</h2>
{% if failed %}<table><thead><tr><th scope="col">Patient</th><th scope="col">Stage</th><th scope="col">Reason</th></tr></thead><tbody>
{% for item in failed %}<tr><td>{{ item.patient }}</td><td>{{ item.stage }}</td><td>{{ item.reason }}</td></tr>
{% endfor %}</tbody></table>{% else %}<p>None.</p>{% endif %}
</body></html>
"""


def write_page(cohort: Cohort, outcomes: dict[str, Outcome], finished: Sequence[PatientResult], path: Path) -> None:
    """Write cohort.html."""
    import jinja2

    patients: list[PatientResponse] = []
    verdicts: Counter[str] = Counter()
    levels: dict[str, Counter[str]] = {flag: Counter() for flag in FLAGS}
    best: tuple[Counter[str], ...] = (Counter(), Counter(), Counter())
    for item in finished:
        response = item.summary.response
        patients.append((item.patient.patient, 0, response))
        verdicts.update(record.quality.verdict for record in item.summary.alignments)
        for flag in item.summary.flags:
            levels[flag.flag][flag.level] += 1
        letters = (response.best_recist, response.best_recist_confirmed, response.best_irecist)
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
        verdicts=[(verdict, verdicts[verdict]) for verdict in _VERDICTS],
    )
    write_text(path, text)
