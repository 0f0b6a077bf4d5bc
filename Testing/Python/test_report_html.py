import dataclasses
import itertools
import re
from html.parser import HTMLParser

import pytest
from factories import DATES, LESIONS, example_analysis, example_images, example_opacities
from hypothesis import given
from hypothesis import strategies as st

from ImmunoRadiomicsLib.analysis import Features, Kinetics
from ImmunoRadiomicsLib.report import key_images, render_report, write_report
from ImmunoRadiomicsLib.report.charts import (
    LABEL_DISTANCE,
    lesion_chart,
    log_odds,
    nice_ticks,
    signed,
    spread_labels,
    sum_chart,
    waterfall,
)
from ImmunoRadiomicsLib.report.html import (
    cautions,
    css_string,
    number,
    pending_visit,
    percent,
    quantities,
    sentence,
    sourced,
)

VOID = {"meta", "link", "img", "br", "hr", "input", "col", "source", "wbr", "base", "area"}
HOSTILE = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order, every attribute is kept."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.style = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def images():
    return key_images(example_analysis(), *example_images(spacing=5.0))


@pytest.fixture(scope="module")
def page(images):
    return Page(render_report(example_analysis(), images))


def test_the_page_stands_alone(page):
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("iframe")
    for tag, attributes in page.elements:
        assert "src" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        if (target := attributes.get("href")) is not None:
            allowed = "data:image/png;base64," if tag == "image" else ("#", "https://doi.org/10.")
            assert target.startswith(allowed), target[:60]
    assert "url(" not in page.style
    assert "@import" not in page.style
    (policy,) = [item["content"] for item in page.all("meta") if item.get("http-equiv")]
    assert "default-src 'none'" in policy


def test_the_page_is_accessible(page):
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    for attributes in page.all("svg"):
        assert attributes.get("aria-hidden") == "true" or (
            attributes["role"] == "img" and len(attributes["aria-label"]) > 20
        )
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in page.all("a"):
        assert not attributes["href"].startswith("#") or attributes["href"][1:] in ids
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids


def test_every_flag_lesion_and_visit_is_there(page):
    analysis = example_analysis()
    for flag in analysis.flags:
        assert flag.question in page.text
        assert flag.reason in page.text
        for item in (*flag.evidence, *flag.definitions):
            for name, said in dataclasses.asdict(item).items():
                if name not in ("id", "use") and isinstance(said, str) and not re.search(r"10\.\d{4}|_", said):
                    assert said.lower() in page.text.lower(), said
        for said in flag.counterfactuals:
            assert said in page.text
    for visit in analysis.response.visits:
        assert f"day {visit.day}, {DATES[visit.timepoint]}" in page.text
        for said in (visit.rule, visit.irecist_rule, visit.confirmation, visit.recist, visit.irecist, visit.non_target):
            assert said in page.text
    rows = {name for name in LESIONS if f" {name} " in page.text}
    assert rows == set(LESIONS)
    for definition in (*analysis.response.hyperprogression, *analysis.response.dissociated):
        assert page.text.count(definition.title) == 1
    for said in (
        analysis.research_use_only,
        analysis.response.narrative,
        *analysis.warnings,
        *analysis.response.warnings,
    ):
        assert said in page.text
    assert "51.8 (1)" in page.text
    assert "12 % 5 % to 24 %" in page.text


def test_pictures_are_embedded_with_their_outlines(page, images):
    panels = [panel for item in images for panel in item.panels]
    assert len(page.all("image")) == len(panels)
    assert {attributes["aria-label"] for attributes in page.all("svg") if "aria-label" in attributes} >= {
        panel.description for panel in panels
    }
    paths = {attributes["d"] for attributes in page.all("path")}
    assert {contour.path for panel in panels for contour in panel.contours} <= paths


def test_no_name_becomes_markup(images):
    analysis = example_analysis()
    lesion = dataclasses.replace(analysis.lesions[0], id=HOSTILE, organ='"><img src=x onerror=alert(1)>')
    flag = dataclasses.replace(
        analysis.flags[0],
        reason=HOSTILE,
        evidence=(dataclasses.replace(analysis.flags[0].evidence[0], source=f"doi:10.1000/{HOSTILE} \"onclick='x'"),),
    )
    hostile = dataclasses.replace(
        analysis,
        patient='</style><script>1</script>"; } body { background: url(http://x) } /*',
        lesions=(lesion, *analysis.lesions[1:]),
        flags=(flag,),
        warnings=(HOSTILE,),
        response=dataclasses.replace(analysis.response, narrative=HOSTILE),
    )
    panels = tuple(dataclasses.replace(item, title=HOSTILE, description=HOSTILE) for item in images[0].panels)
    pictured = (dataclasses.replace(images[0], title=HOSTILE, panels=panels), *images[1:])
    page = Page(render_report(hostile, pictured))
    assert not page.all("script")
    assert not page.all("img")
    assert "url(" not in page.style
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 6
    assert hostile.patient in page.text


@given(st.text(max_size=40))
def test_a_css_string_holds_only_codes(text):
    assert re.fullmatch(r"(\\[0-9a-f]+ )*", css_string(text))
    assert "".join(chr(int(code, 16)) for code in re.findall(r"\\([0-9a-f]+) ", css_string(text))) == text


@given(st.text(max_size=60))
def test_a_source_keeps_its_words_and_no_markup(text):
    page = Page(f"<p>{sourced(text)}</p>")
    assert {tag for tag, _ in page.elements} <= {"p", "a"}


def test_sources_link_their_dois():
    assert str(sourced("see doi:10.1016/S1470-2045(17)30074-8.")) == (
        'see <a href="https://doi.org/10.1016/S1470-2045(17)30074-8">doi:10.1016/S1470-2045(17)30074-8</a>.'
    )
    assert str(sourced("https://doi.org/10.1000/a_b, PMID 1 & 2")).endswith("doi:10.1000/a_b</a>, PMID 1 &amp; 2")
    assert str(sourced("Zhao 2022")) == "Zhao 2022"


def test_the_banner_stands_only_while_progression_is_unconfirmed():
    analysis = example_analysis()
    assert pending_visit(analysis).timepoint == "followup-2"
    assert "Progression waits for confirmation" in render_report(analysis, ())
    first, second = analysis.response.visits

    def after(*visits):
        return dataclasses.replace(analysis, response=dataclasses.replace(analysis.response, visits=visits))

    for letter in ("iCPD", "iSD", "iPR", "iCR"):
        later = dataclasses.replace(second, day=130, irecist=letter)
        assert pending_visit(after(first, second, later)) is None
        assert "Progression waits for confirmation" not in render_report(after(first, second, later), ())
    unread = dataclasses.replace(second, day=130, irecist="NE")
    assert pending_visit(after(first, second, unread)) == second
    assert pending_visit(after()) is None


def test_a_patient_of_whom_nothing_is_known_has_a_page(tmp_path):
    analysis = example_analysis()
    response = dataclasses.replace(
        analysis.response,
        visits=(),
        best_recist="",
        best_recist_confirmed="",
        best_irecist="",
        progression_day=None,
        kinetics=Kinetics(),
        hyperprogression=(),
        dissociated=(),
        warnings=(),
        narrative="",
    )
    flags = tuple(
        dataclasses.replace(
            flag,
            status="not assessable",
            probability=None,
            lower=None,
            upper=None,
            prior=None,
            prior_lower=None,
            prior_upper=None,
            evidence=(),
            counterfactuals=(),
            definitions=(),
        )
        for flag in analysis.flags
    )
    bare = dataclasses.replace(
        analysis,
        tumour=None,
        treatment_start_day=None,
        alignments=(),
        lesions=(),
        lungs=(),
        lung_changes=(),
        features=(),
        deltas=(),
        response=response,
        flags=flags,
        context=(),
        warnings=(),
    )
    page = Page(render_report(bare, ()))
    assert "No warning was raised." in page.text
    assert "None" not in page.text.replace("None could be computed", "")
    assert not re.search(r"\bnan\b", page.text)


def test_writing_is_whole_and_repeatable(tmp_path, images):
    analysis = example_analysis()
    write_report(analysis, images, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_report(analysis, images)
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (float("nan"), "–"), (0.004, "below 1 %"), (0.118, "12 %"), (0.995, "above 99 %"), (0.99, "99 %")],
)
def test_probabilities_never_claim_certainty(value, said):
    assert percent(value) == said


def test_numbers_are_said_as_the_field_says_them():
    assert [number(-12.34), number(None), number(float("nan")), number(-0.01)] == ["−12.3", "–", "–", "0.0"]
    assert [signed(12.4), signed(-3.0), signed(0.2), signed(-0.04, 1)] == ["+12", "−3", "0", "0.0"]
    assert quantities(
        {"tgr_ratio": 1.184, "increase_mm": -9.74, "tgr_difference_percent_per_month": 3.0, "delay_days": None}
    ) == (
        "TGR ratio 1.184",
        "increase −9.74 mm",
        "TGR difference 3 % per month",
        "delay not known",
    )


def test_the_sum_chart_shows_the_thresholds_of_the_criteria():
    analysis = example_analysis()
    chart = sum_chart(analysis)
    low, high = chart.y_ticks[0], chart.y_ticks[-1]

    def millimetres(place: float) -> float:
        share = (place - low.at) / (high.at - low.at)
        return float(low.label) + share * (float(high.label) - float(low.label))

    baseline = analysis.response.visits[0].baseline_mm
    levels = {
        kind: [millimetres(item.y) for item in chart.guides if item.kind == kind]
        for kind in ("baseline", "response", "nadir", "progression")
    }
    assert levels["baseline"] == [pytest.approx(baseline)]
    assert levels["response"] == [pytest.approx(0.7 * baseline)]
    assert levels["nadir"] == pytest.approx([baseline, baseline])
    assert levels["progression"] == pytest.approx([1.2 * baseline] * 2)
    sums = [millimetres(dot.y) for dot in chart.lines[0].dots]
    assert sums == pytest.approx([baseline, *(visit.sum_mm for visit in analysis.response.visits)])


def test_small_sums_need_five_millimetres_to_progress():
    analysis = example_analysis()
    visit = dataclasses.replace(analysis.response.visits[0], sum_mm=12.0, baseline_mm=10.0, nadir_mm=10.0)
    chart = sum_chart(dataclasses.replace(analysis, response=dataclasses.replace(analysis.response, visits=(visit,))))
    low, high = chart.y_ticks[0], chart.y_ticks[-1]
    (limit,) = [item.y for item in chart.guides if item.kind == "progression"]
    share = (limit - low.at) / (high.at - low.at)
    assert float(low.label) + share * (float(high.label) - float(low.label)) == pytest.approx(15.0)


def test_the_lesion_chart_counts_from_the_baseline_or_from_the_first_measurement():
    chart = lesion_chart(example_analysis())
    lines = {line.label: line for line in chart.lines}
    assert set(lines) == {"L1", "L2", "N1", "H1", "L5 (new)", "sum"}
    assert lines["L1"].dots[3].text == "L1, day 98: 51.8 mm (+35 %)"
    assert lines["N1"].dots[1].text == "N1, day 0: 17.4 mm (0 %)"
    assert [dot.text for dot in lines["L5 (new)"].dots] == ["L5, day 98: 14.3 mm (0 %)"]
    assert all(chart.top <= dot.y <= chart.bottom for line in chart.lines for dot in line.dots)


def test_the_lesion_chart_shows_the_sum_with_its_nadir_and_thresholds():
    chart = lesion_chart(example_analysis())
    (total,) = [line for line in chart.lines if line.label == "sum"]
    assert total.dots[0].text == "sum, day 0: 74.8 mm (0 %)"
    assert total.dots[-1].text == "sum, day 98: 87.3 mm (+17 %)"
    percent_of_one = {tick.label: tick.at for tick in chart.y_ticks}
    zero, twenty = percent_of_one["0"], percent_of_one["+20"]
    places = {guide.kind: guide.y for guide in chart.guides}
    # The smallest sum so far is the baseline's, so that the nadir is at 0 % and the limit of progression at +20 %.
    assert places["nadir"] == pytest.approx(zero)
    assert places["progression"] == pytest.approx(twenty)
    assert places["response"] == pytest.approx(zero + 1.5 * (zero - twenty))


def lesion_rows(analysis) -> dict[str, str]:
    text = render_report(analysis, ())
    table = text[text.index('id="lesions"') : text.index("Sum of targets")]
    found = {}
    for row in table.split("<tr>")[1:]:
        cells = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row)).split()
        found[cells[0]] = " ".join(cells)
    return found


def with_last(analysis, lesion: int, **changes):
    chosen = analysis.lesions[lesion]
    last = dataclasses.replace(chosen.observations[-1], **changes)
    lesions = list(analysis.lesions)
    lesions[lesion] = dataclasses.replace(chosen, observations=(*chosen.observations[:-1], last))
    return dataclasses.replace(analysis, lesions=tuple(lesions))


def test_the_lesion_table_says_what_happened():
    analysis = example_analysis()
    rows = lesion_rows(analysis)
    assert rows["L5"] == "L5 lung new-target long axis absent absent absent 14.3 0.84 ml new"
    assert rows["N1"].startswith(
        "N1 mediastinal lymph node target short axis 15.5 −11 % · 2.7 ml 17.4 3.7 ml 20.0 +15 %"
    )
    gone = with_last(analysis, 1, status="absent", event="vanished", long_axis_mm=0.0, short_axis_mm=0.0, volume_ml=0.0)
    assert lesion_rows(gone)["L2"].endswith("absent −100 % vanished")
    (line,) = [item for item in lesion_chart(gone).lines if item.label == "L2"]
    assert line.dots[-1].text == "L2, day 98: 0.0 mm (−100 %)"
    merged = with_last(
        analysis, 1, status="merged", event="merged", merged_into="L1", long_axis_mm=None, volume_ml=None
    )
    assert lesion_rows(merged)["L2"].endswith("merged merged into L1")
    (line,) = [item for item in lesion_chart(merged).lines if item.label == "L2"]
    assert [dot.text.split(":")[0] for dot in line.dots] == ["L2, day −51", "L2, day 0", "L2, day 62"]
    split = with_last(analysis, 1, event="split", segments=("L2a", "L2b"))
    assert lesion_rows(split)["L2"].endswith("split into 2")
    small = with_last(analysis, 1, status="too small", long_axis_mm=4.0)
    assert "4.0 −79 %" in lesion_rows(small)["L2"]
    assert lesion_rows(small)["L2"].endswith("too small")
    unread = with_last(analysis, 1, status="not evaluated", event="not evaluated", long_axis_mm=None, volume_ml=None)
    assert lesion_rows(unread)["L2"].endswith("2.0 ml 17.1 −10 % · 1.4 ml not evaluated")


def test_limits_are_said_once():
    analysis = example_analysis()
    said = cautions(analysis)
    assert "The alignment of followup-2 failed: lung overlap 0.88 is below 0.90; the lungs hold 24 % less air." in said
    assert not [item for item in said if "alignment of followup-1" in item]
    known = "followup-2: the alignment failed and nothing was derived from it"
    again = cautions(dataclasses.replace(analysis, warnings=(known, known)))
    assert [item for item in again if "followup-2" in item and "alignment" in item] == [known + "."]


def test_regions_without_radiomics_are_said_by_reason():
    analysis = example_analysis()
    empty = [Features(timepoint, "L2", "border", 0, "the region is empty") for timepoint in ("baseline", "followup-1")]
    page = Page(render_report(dataclasses.replace(analysis, features=(*analysis.features, *empty)), ()))
    assert "The region is empty: L2 border (baseline, followup-1)." in page.text
    assert "3 voxels are fewer than the 64 that texture needs: L5 border (followup-2)." in page.text


def test_the_largest_radiomics_changes_are_the_largest():
    page = Page(render_report(example_analysis(), ()))
    delta = next(
        item
        for item in example_analysis().deltas
        if (item.lesion, item.region, item.later) == ("L1", "core", "followup-2")
    )
    ranked = sorted(
        (name for name, value in delta.values.items() if name.startswith("original_") and value[1] is not None),
        key=lambda name: -abs(delta.values[name][1]),
    )
    table = page.text[page.text.index("Largest relative changes") :]
    found = [match.group(1) for match in re.finditer(r"L1 core (\S+ \S+) baseline and followup-2", table)]
    assert found == [name.removeprefix("original_").replace("_", " ") for name in ranked[:3]]
    assert f"{signed(100 * delta.values[ranked[0]][1])} %" in table


def test_sentences_keep_the_terms_of_the_field():
    assert [sentence(text) for text in ("new lesion L5", "iCPD on a scan", "Done.", "")] == [
        "New lesion L5.",
        "iCPD on a scan.",
        "Done.",
        "",
    ]


@given(st.lists(st.floats(20, 260), min_size=1, max_size=15))
def test_labels_never_overlap(wanted):
    placed = spread_labels(wanted, 16.0, 270.0)
    order = sorted(placed)
    assert all(later - earlier >= LABEL_DISTANCE - 1e-9 for earlier, later in itertools.pairwise(order))
    assert max(placed) <= 270.0 + 1e-9
    by_wish = [place for _, place in sorted(zip(wanted, placed, strict=True))]
    assert by_wish == sorted(by_wish)


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_cover_the_range_with_few_round_numbers(low, span):
    ticks = nice_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6 * span
    assert ticks[-1] >= low + span - 1e-6 * span
    assert 2 <= len(ticks) <= 9


def test_the_waterfall_leads_from_the_prior_to_the_result():
    flag = example_analysis().flags[1]
    fall = waterfall(flag)
    used = [item for item in flag.evidence if item.use == "used"]
    bars = [step for step in fall.steps if step is not None]
    assert len(bars) == len(used) == 3
    assert bars[0].start == pytest.approx(fall.prior.end)
    assert all(later.start == pytest.approx(earlier.end) for earlier, later in itertools.pairwise(bars))
    scale = (fall.result.end - fall.prior.end) / (log_odds(flag.probability) - log_odds(flag.prior))
    for bar, item in zip(bars, used, strict=True):
        assert bar.end - bar.start == pytest.approx(scale * item.log_odds)
    total = log_odds(flag.prior) + sum(item.log_odds for item in used)
    assert fall.remainder_log_odds == pytest.approx(log_odds(flag.probability) - total)
    assert (fall.remainder is None) == (abs(fall.remainder_log_odds) < 0.02)
    shifted = waterfall(dataclasses.replace(flag, probability=0.5))
    assert shifted.remainder.end == pytest.approx(shifted.result.end)
    assert waterfall(example_analysis().flags[2]) is None


def test_new_opacities_of_the_lungs_are_mapped_or_it_is_said_why_not():
    material = example_images(spacing=8.0)
    analysis = example_analysis()
    images = key_images(analysis, *material, opacities=example_opacities(material[0]))
    page = Page(render_report(analysis, images))
    said = [attributes["aria-label"] for tag, attributes in page.elements if attributes.get("role") == "img"]
    assert len([text for text in said if "new ground glass in light blue" in text]) == 2
    text = " ".join(" ".join(page.words).split())
    assert "New lung opacities, followup-1" in text
    assert "The map of followup-2 is withheld: lung volume ratio 0.76 is outside 0.85 to 1.15." in text
    nothing = tuple(
        dataclasses.replace(item, new_ground_glass_ml=0.0, new_consolidation_ml=0.0) if item.assessable else item
        for item in analysis.lung_changes
    )
    bare = render_report(dataclasses.replace(analysis, lung_changes=nothing), ())
    assert "At followup-1 nothing is new in the lungs, so there is nothing to map." in bare
