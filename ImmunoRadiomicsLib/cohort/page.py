"""One page about a cohort: responses, flags, quality and failures; it opens offline and prints in greyscale."""

from __future__ import annotations

from pathlib import Path

from ..files import write_text
from ..pipeline import RESEARCH_USE_ONLY, software_version
from ..response.plots import cohort_plots
from .plots import flag_plot
from .view import CAPTIONS, LEVELS, SCANNER_COLUMNS, CohortView, harmonisation_drawings

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Cohort report</title><style>
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } th, td { border-bottom: 1px solid #ccc; padding: .25rem .7rem; text-align: left; vertical-align: top }
td.number { text-align: right } svg { max-width: 100%; height: auto } figure { margin: 0 0 1.5rem; break-inside: avoid } figcaption { color: #444 }
.notice { border: 2px solid #222; padding: .4rem .8rem; font-weight: 600 }
@page { margin: 15mm } @media print { body { margin: 0; max-width: none; font-size: 10pt } }
</style></head><body>
{% macro figure(caption, drawing) %}<figure role="img" aria-label="{{ caption }}">{{ drawing | safe }}<figcaption>{{ caption }}</figcaption></figure>
{% endmacro %}
<h1>Cohort report</h1>
<p class="notice">{{ notice }}</p>
<p>{{ view.headline }} ImmunoRadiomics {{ version }}.</p>
<h2>Response</h2>
{% for name, drawing in plots %}{{ figure(captions[name], drawing) }}{% endfor %}
<h2>Best overall response</h2>
<table><thead><tr><th scope="col">Response</th><th scope="col">RECIST 1.1</th><th scope="col">RECIST 1.1, confirmed</th><th scope="col">iRECIST</th></tr></thead><tbody>
{% for letter, counts in view.best %}<tr><th scope="row">{{ letter }}</th>{% for count in counts %}<td class="number">{{ count }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
<h2>The three questions</h2>
{{ figure(captions.flags, flags) }}
<table><thead><tr><th scope="col">Question</th>{% for level in levels %}<th scope="col">{{ level }}</th>{% endfor %}</tr></thead><tbody>
{% for flag, counts in view.levels.items() %}<tr><th scope="row">{{ flag }}</th>{% for level in levels %}<td class="number">{{ counts[level] }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
<h2>Quality</h2>
{% if view.scanners %}<table><caption>Scans by scanner</caption><thead><tr>{% for column in scanner_columns %}<th scope="col">{{ column }}</th>{% endfor %}</tr></thead><tbody>
{% for row in view.scanners %}<tr><th scope="row">{{ row[0] }}</th>{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>{% endif %}
<p>{{ view.alignment }}</p>
{% if view.harmonised %}<h2>Harmonisation by {{ view.harmonised.by }}</h2>
<p>{{ view.harmonisation }}</p>
{% for part, drawings in harmonised %}<h3>Features of {{ part.name }}</h3><p>{{ part.note }}</p>
{% for caption, drawing in drawings %}{{ figure(caption, drawing) }}{% endfor %}{% endfor %}{% endif %}
<h2>Not analysed</h2>
{% if view.failed %}<table><thead><tr><th scope="col">Patient</th><th scope="col">Stage</th><th scope="col">Reason</th></tr></thead><tbody>
{% for item in view.failed %}<tr><td>{{ item.patient }}</td><td>{{ item.stage }}</td><td>{{ item.reason }}</td></tr>
{% endfor %}</tbody></table>{% else %}<p>None.</p>{% endif %}
</body></html>
"""


def write_page(view: CohortView, path: Path) -> None:
    """Write cohort.html."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(_PAGE).render(
        notice=RESEARCH_USE_ONLY,
        version=software_version(),
        view=view,
        plots=list(cohort_plots(view.patients).items()) if view.patients else [],
        captions=CAPTIONS,
        flags=flag_plot(view.levels),
        levels=LEVELS,
        scanner_columns=SCANNER_COLUMNS,
        harmonised=[
            (part, harmonisation_drawings(part)) for part in (view.harmonised.parts if view.harmonised else ())
        ],
    )
    write_text(path, text)
