"""The printed report: everything is on the paper, nothing lies over anything else."""

from __future__ import annotations

import dataclasses
import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from factories import example_analysis, example_images, example_opacities

from ImmunoRadiomicsLib.analysis import Analysis
from ImmunoRadiomicsLib.report import key_images, write_pdf

SIZES = {"A4": (595.3, 841.9), "letter": (612.0, 792.0)}
MARGIN = 34.0


def crowded() -> Analysis:
    """A patient with twelve scans, twenty lesions and long words."""
    analysis = example_analysis()
    first = analysis.timepoints[-1]
    times = list(analysis.timepoints)
    for number in range(3, 11):
        times.append(
            dataclasses.replace(first, name=f"followup-{number}", day=98 + 60 * number, date=f"2025-{number:02d}-01")
        )
    lesions = []
    for index in range(20):
        lesion = analysis.lesions[index % 5]
        observations = list(lesion.observations)
        observations += [dataclasses.replace(observations[-1], timepoint=item.name, check=None) for item in times[4:]]
        organ = "retroperitoneal lymph node beside the inferior mesenteric artery" if index == 3 else lesion.organ
        lesions.append(
            dataclasses.replace(lesion, id=f"{lesion.id}-{index}", organ=organ, observations=tuple(observations))
        )
    visit = analysis.response.visits[-1]
    visits = list(analysis.response.visits)
    visits += [
        dataclasses.replace(
            visit, timepoint=item.name, day=item.day, irecist="NON-iCR/NON-iUPD", non_target="non-CR/non-PD"
        )
        for item in times[4:]
    ]
    return dataclasses.replace(
        analysis,
        patient="ÄÖ-研究-" + "x" * 40,
        timepoints=tuple(times),
        lesions=tuple(lesions),
        response=dataclasses.replace(analysis.response, visits=tuple(visits)),
    )


@pytest.fixture(scope="module")
def images():
    material = example_images(spacing=6.0)
    return key_images(example_analysis(), *material, opacities=example_opacities(material[0]))


def boxes(path: Path) -> list[tuple[int, tuple[float, float], list[tuple[str, np.ndarray]]]]:
    """Each page: its number, its size, and every word with its box (left, top, right, bottom) in points."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext (poppler-utils) is not installed")
    text = subprocess.run(["pdftotext", "-bbox", str(path), "-"], check=True, capture_output=True, text=True).stdout
    pages = []
    for number, page in enumerate(re.findall(r"<page (.*?)</page>", text, re.DOTALL), start=1):
        size = re.match(r'width="([\d.]+)" height="([\d.]+)"', page)
        assert size is not None
        words = [
            (html.unescape(word), np.array(list(map(float, place))))
            for *place, word in re.findall(
                r'<word xMin="([-\d.]+)" yMin="([-\d.]+)" xMax="([-\d.]+)" yMax="([-\d.]+)">(.*?)</word>', page
            )
        ]
        pages.append((number, (float(size.group(1)), float(size.group(2))), words))
    return pages


@pytest.mark.parametrize("page", ["A4", "letter"])
@pytest.mark.parametrize("case", ["example", "crowded"])
def test_words_lie_on_the_paper_and_not_over_each_other(tmp_path: Path, images, page: str, case: str) -> None:
    path = tmp_path / "report.pdf"
    analysis = example_analysis() if case == "example" else crowded()
    write_pdf(analysis, images if case == "example" else (), path, page=page)  # type: ignore[arg-type]
    pages = boxes(path)
    assert len(pages) >= 4
    for number, size, words in pages:
        assert size == pytest.approx(SIZES[page], abs=0.2)
        places = np.array([place for _, place in words])
        assert places[:, :2].min() >= MARGIN - 1
        assert (places[:, 2] <= size[0] - MARGIN + 1).all()
        assert (places[:, 3] <= size[1] - MARGIN + 12).all()
        # The box of a word has the height of its font; letters fill less of it.
        inner = places + np.stack([np.full(len(places), 0.6), 0.25 * (places[:, 3] - places[:, 1])] * 2, axis=1) * [
            1,
            1,
            -1,
            -1,
        ]
        for index, box in enumerate(inner):
            others = inner[index + 1 :]
            over = (others[:, 0] < box[2]) & (box[0] < others[:, 2]) & (others[:, 1] < box[3]) & (box[1] < others[:, 3])
            labels = [words[index + 1 + int(at)][0] for at in np.flatnonzero(over)]
            # Labels on pictures are written twice: a dark casing below the white letters.
            assert all(label == words[index][0] for label in labels), (
                f"page {number}: {words[index][0]} lies over {labels}"
            )


def test_it_says_what_a_report_of_response_says(tmp_path: Path, images) -> None:
    path = tmp_path / "report.pdf"
    write_pdf(example_analysis(), images, path)
    text = " ".join(word for _, _, words in boxes(path) for word, _ in words)
    analysis = example_analysis()
    for wanted in (
        analysis.research_use_only,
        "Progression waits for confirmation (iUPD)",
        "Scan again between day 126 and day 154",
        "Sum of target diameters",
        "Limits and validity",
        "RECIST 1.1 (doi:10.1016/j.ejca.2008.10.026)",
        "2024-01-10 (74.8 mm)",
        "lung volume ratio 0.76 is outside 0.85 to 1.15",
        "The map of followup-2 is withheld: lung volume ratio 0.76",
        "New lung opacities, followup-1",
        "with new ground glass in light blue",
        "690 nodules",
        "Line chart of the sum of target diameters over time",
        "alignment failed",
    ):
        assert wanted in text, wanted
    for lesion in analysis.lesions:
        assert lesion.id in text
    assert "�" not in text
    content = path.read_bytes()
    assert b"/Lang" in content
    assert b"/Outlines" in content


def test_the_same_result_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("one.pdf", "two.pdf"):
        write_pdf(example_analysis(), (), tmp_path / name)
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()


def test_an_analysis_without_anything_is_printed_too(tmp_path: Path) -> None:
    analysis = example_analysis()
    bare = dataclasses.replace(
        analysis,
        tumour=None,
        treatment_start_day=None,
        lesions=(),
        lungs=(),
        lung_changes=(),
        alignments=(),
        flags=(),
        context=(),
        warnings=(),
        response=dataclasses.replace(
            analysis.response, visits=(), warnings=(), hyperprogression=(), dissociated=(), narrative=""
        ),
    )
    write_pdf(bare, (), tmp_path / "report.pdf")
    text = " ".join(word for _, _, words in boxes(tmp_path / "report.pdf") for word, _ in words)
    assert "No visit could be assessed." in text
    assert "No lesion." in text
