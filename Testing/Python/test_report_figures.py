import dataclasses
import re
import tempfile

import numpy as np
import pytest
import SimpleITK as sitk
from factories import DAYS, LESIONS, SHORT_OVER_LONG, example_analysis, example_images, movement

from ImmunoRadiomicsLib.errors import CancelledError
from ImmunoRadiomicsLib.images import segmentation_from_arrays
from ImmunoRadiomicsLib.report import KeyImage, key_images
from ImmunoRadiomicsLib.report.figures import Panel, locally_rigid, scale_bar_mm, window_for


def turned(x: float, y: float, z: float) -> np.ndarray:
    return np.array(sitk.Euler3DTransform((0, 0, 0), np.radians(x), np.radians(y), np.radians(z)).GetMatrix()).reshape(
        3, 3
    )


DIRECTIONS = {
    "axial": np.eye(3),
    "prone": np.diag([-1.0, -1.0, 1.0]),
    "feet first": np.diag([-1.0, 1.0, -1.0]),
    "left-handed": np.diag([-1.0, 1.0, 1.0]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]),
    "sagittal": np.array([[0, 0, -1.0], [1.0, 0, 0], [0, -1.0, 0]]),
    "oblique": turned(8.0, -5.0, 20.0),
}


def decoded(panel: Panel, tmp_path) -> np.ndarray:
    path = tmp_path / "panel.png"
    path.write_bytes(panel.png)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def grey_at(picture: np.ndarray, panel: Panel, x_mm: float, y_mm: float) -> float:
    rows, columns = picture.shape[:2]
    row, column = int(y_mm / panel.height_mm * rows), int(x_mm / panel.width_mm * columns)
    return float(picture[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].mean())


def polygons(path: str) -> list[np.ndarray]:
    return [
        np.array([[float(value) for value in point.split()] for point in piece.rstrip("Z").split("L")])
        for piece in path.split("M")[1:]
    ]


def area_and_centre(path: str) -> tuple[float, np.ndarray]:
    total, moment = 0.0, np.zeros(2)
    for polygon in polygons(path):
        ahead = np.roll(polygon, -1, axis=0)
        cross = polygon[:, 0] * ahead[:, 1] - ahead[:, 0] * polygon[:, 1]
        total += cross.sum() / 2
        moment += ((polygon + ahead) * cross[:, None]).sum(axis=0) / 6
    return abs(total), moment / total


def of_lesion(images: tuple[KeyImage, ...], lesion: str) -> KeyImage:
    (found,) = [item for item in images if item.kind == "lesion" and item.lesion == lesion]
    return found


def panel_of(images: tuple[KeyImage, ...], lesion: str, timepoint: str, view: str) -> Panel:
    (found,) = [item for item in of_lesion(images, lesion).panels if (item.timepoint, item.view) == (timepoint, view)]
    return found


@pytest.fixture(scope="module")
def material():
    return example_images(spacing=3.0)


@pytest.fixture(scope="module")
def images(material):
    return key_images(example_analysis(), *material)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_patient_right_is_at_the_left_whatever_the_direction(name, tmp_path):
    volumes, segmentations, transforms = example_images(4.0, {"baseline": DIRECTIONS[name]})
    analysis = example_analysis()
    only = {"baseline": volumes["baseline"]}
    made = key_images(analysis, only, {"baseline": segmentations["baseline"]}, transforms)
    (overview,) = [item for item in made if item.kind == "overview"]
    (panel,) = overview.panels
    picture = decoded(panel, tmp_path)
    marks = {mark.label: mark for mark in panel.marks}
    right, left = marks["L1"], marks["L2"]
    assert right.x_mm < panel.width_mm / 2 < left.x_mm
    assert right.y_mm < left.y_mm  # L1 lies nearer to the head
    assert left.x_mm - right.x_mm == pytest.approx(LESIONS["L2"][3][0] - LESIONS["L1"][3][0], abs=0.01)
    assert left.y_mm - right.y_mm == pytest.approx(LESIONS["L1"][3][2] - LESIONS["L2"][3][2], abs=0.01)
    # The picture is cut through L1: bright there, lung where the mirrored or upside-down picture would show it.
    middle = (right.x_mm + marks["L2"].x_mm - (LESIONS["L1"][3][0] + LESIONS["L2"][3][0])) / 2
    assert grey_at(picture, panel, right.x_mm, right.y_mm) > 200
    assert grey_at(picture, panel, 2 * middle - right.x_mm, right.y_mm) < 120

    lesion = panel_of(made, "L1", "baseline", "own")
    axial = decoded(lesion, tmp_path)
    centre, away = lesion.width_mm / 2, 24.0
    assert grey_at(axial, lesion, centre, centre) > 200
    # The long axis runs from right anterior to left posterior: from the upper left to the lower right of the picture.
    step = 14.0
    assert grey_at(axial, lesion, centre - 0.8 * step, centre - 0.6 * step) > 200
    assert grey_at(axial, lesion, centre + 0.8 * step, centre + 0.6 * step) > 200
    assert grey_at(axial, lesion, centre + 0.6 * 1.8 * step, centre - 0.8 * 1.8 * step) < 120
    assert grey_at(axial, lesion, centre + away, centre - away) < 120
    (contour,) = [item for item in lesion.contours if item.main]
    size, middle_of_contour = area_and_centre(contour.path)
    assert middle_of_contour == pytest.approx([centre, centre], abs=1.2)
    assert size == pytest.approx(np.pi / 4 * 38.4**2 * SHORT_OVER_LONG, rel=0.08)


def test_every_time_point_has_its_pictures_in_one_field_of_view(images):
    for lesion in LESIONS:
        group = of_lesion(images, lesion)
        assert len({(panel.width_mm, panel.height_mm) for panel in group.panels}) == 1
        views = {(panel.timepoint, panel.view) for panel in group.panels}
        assert {(name, "own") for name in DAYS} <= views
        followed = {(name, "registered") for name in DAYS if name != "baseline"}
        expected = followed if lesion != "L5" else {("followup-2", "registered")}
        assert {item for item in views if item[1] == "registered"} == expected
    assert [item.kind for item in images] == ["overview"] + ["lesion"] * len(LESIONS) + ["alignment"] * 3


def test_pictures_are_named_by_their_time_and_a_failed_alignment_is_said(images):
    titles = [panel.title for panel in of_lesion(images, "L1").panels]
    assert titles == [
        "prebaseline, day −51",
        "prebaseline, day −51 on baseline",
        "baseline, day 0",
        "followup-1, day 62",
        "followup-1, day 62 on baseline",
        "followup-2, day 98",
        "followup-2, day 98 on baseline (alignment failed)",
    ]
    assert images[-1].title == "followup-2, day 98 on baseline (alignment failed)"


def test_outlines_have_the_size_of_the_lesion(images):
    for index, timepoint in enumerate(DAYS):
        panel = panel_of(images, "L1", timepoint, "own")
        (contour,) = [item for item in panel.contours if item.main]
        size, centre = area_and_centre(contour.path)
        assert size == pytest.approx(np.pi / 4 * LESIONS["L1"][4][index] ** 2 * SHORT_OVER_LONG, rel=0.06)
        assert centre == pytest.approx([panel.width_mm / 2, panel.height_mm / 2], abs=0.6)
        assert contour.of == ("baseline" if timepoint == "baseline" else "timepoint")


def test_a_registered_picture_carries_the_lesion_onto_its_place_at_baseline(images, tmp_path):
    for lesion in ("L1", "L2"):
        for timepoint in ("followup-1", "followup-2"):
            panel = panel_of(images, lesion, timepoint, "registered")
            by_time = {item.of: item for item in panel.contours if item.main}
            assert set(by_time) == {"baseline", "timepoint"}
            then, _ = area_and_centre(by_time["baseline"].path)
            now, place = area_and_centre(by_time["timepoint"].path)
            assert place == pytest.approx([panel.width_mm / 2, panel.height_mm / 2], abs=1.0)
            grown = LESIONS[lesion][4][list(DAYS).index(timepoint)] / LESIONS[lesion][4][1]
            assert now / then == pytest.approx(grown**2, rel=0.12)
            assert panel.diameters == ()


def test_without_movement_the_lesion_lies_where_it_moved_to(material):
    volumes, segmentations, _ = material
    still = {"followup-1": sitk.Transform(3, sitk.sitkIdentity)}
    made = key_images(example_analysis(), volumes, segmentations, still)
    panel = panel_of(made, "L1", "followup-1", "registered")
    (contour,) = [item for item in panel.contours if item.main and item.of == "timepoint"]
    _, place = area_and_centre(contour.path)
    there = LESIONS["L1"][3]
    moved = np.subtract(movement("followup-1").TransformPoint(there), there)[:2]
    assert np.abs(moved).max() > 5
    assert place - panel.width_mm / 2 == pytest.approx(moved, abs=1.2)


def shrinking_field(centre: tuple[float, float, float], factor: float) -> sitk.Transform:
    """Points within 30 mm of a centre are drawn away from it by a factor there that fades outwards: growth, seen backwards."""
    size, spacing = (41, 41, 41), 4.0
    origin = np.subtract(centre, (size[0] - 1) / 2 * spacing)
    away = (
        np.stack(np.meshgrid(*(np.arange(count) * spacing for count in size), indexing="ij"), axis=-1) + origin - centre
    )
    fade = np.exp(-((np.linalg.norm(away, axis=-1, keepdims=True) / 28.0) ** 4))
    field = sitk.GetImageFromArray(
        np.ascontiguousarray(((factor - 1) * fade * away).transpose(2, 1, 0, 3)), isVector=True
    )
    field.SetOrigin(origin.tolist())
    field.SetSpacing([spacing] * 3)
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def test_growth_stays_visible_under_a_deformable_alignment(material):
    volumes, segmentations, _ = material
    centre, sizes = LESIONS["L1"][3], LESIONS["L1"][4]
    grown = sizes[3] / sizes[1]
    whole = sitk.CompositeTransform([movement("followup-2"), shrinking_field(centre, grown)])
    assert (
        np.linalg.norm(np.subtract(whole.TransformPoint(np.add(centre, (18.0, 0, 0))), whole.TransformPoint(centre)))
        > 22
    )
    made = key_images(example_analysis(), volumes, segmentations, {"followup-2": whole})
    panel = panel_of(made, "L1", "followup-2", "registered")
    by_time = {item.of: area_and_centre(item.path) for item in panel.contours if item.main}
    assert by_time["timepoint"][0] / by_time["baseline"][0] == pytest.approx(grown**2, rel=0.08)
    assert by_time["timepoint"][1] == pytest.approx([panel.width_mm / 2] * 2, abs=1.0)


def test_a_rigid_movement_is_found_again_exactly():
    centre = (40.0, -25.0, 60.0)
    found = locally_rigid(movement("followup-2"), centre, 90.0, 20.0)
    for point in ((0.0, 0.0, 0.0), (120.0, -80.0, 40.0), centre):
        assert found.TransformPoint(point) == pytest.approx(movement("followup-2").TransformPoint(point), abs=1e-9)


def test_diameters_are_drawn_at_their_length(images):
    panel = panel_of(images, "L1", "followup-1", "own")
    ends = {item.name: np.array([item.start, item.end]) for item in panel.diameters}
    for name, length in (("long axis", 46.1), ("short axis", 46.1 * SHORT_OVER_LONG)):
        assert np.linalg.norm(ends[name][1] - ends[name][0]) == pytest.approx(length, abs=1e-6)
        assert ends[name].mean(axis=0) == pytest.approx([panel.width_mm / 2] * 2, abs=1e-6)
    assert ends["long axis"][1] - ends["long axis"][0] == pytest.approx([0.8 * 46.1, 0.6 * 46.1], abs=1e-6)


def test_a_new_lesion_is_looked_for_where_it_will_be(images, tmp_path):
    panel = panel_of(images, "L5", "followup-1", "own")
    assert "corresponding slice" in panel.description
    assert panel.contours == ()
    picture = decoded(panel, tmp_path)
    assert grey_at(picture, panel, panel.width_mm / 2, panel.height_mm / 2) < 120
    later = panel_of(images, "L5", "followup-2", "own")
    assert grey_at(decoded(later, tmp_path), later, later.width_mm / 2, later.height_mm / 2) > 200


def test_a_merged_lesion_shows_the_outline_of_its_carrier(material):
    analysis = example_analysis()
    l2 = analysis.lesions[1]
    last = l2.observations[3]
    carrier = analysis.lesions[0].observations[3]
    merged = dataclasses.replace(
        last,
        status="merged",
        event="merged",
        merged_into="L1",
        long_axis_mm=None,
        short_axis_mm=None,
        long_axis_ends_lps_mm=None,
        short_axis_ends_lps_mm=None,
        centroid_lps_mm=carrier.centroid_lps_mm,
    )
    lesions = (analysis.lesions[0], dataclasses.replace(l2, observations=(*l2.observations[:3], merged)))
    made = key_images(dataclasses.replace(analysis, lesions=lesions), *material)
    panel = panel_of(made, "L2", "followup-2", "own")
    assert {item.label for item in panel.contours if item.main} == {"L1"}


def test_the_alignment_pictures_agree_where_the_scans_do(images, tmp_path):
    groups = [item for item in images if item.kind == "alignment"]
    assert [item.timepoint for item in groups] == ["prebaseline", "followup-1", "followup-2"]
    for group in groups:
        assert {(panel.view, panel.plane) for panel in group.panels} == {
            (view, plane) for view in ("fusion", "checkerboard") for plane in ("axial", "coronal")
        }
        for panel in group.panels:
            picture = decoded(panel, tmp_path).astype(int)
            if panel.view == "fusion":
                assert picture.shape[2] == 3
                assert np.abs(picture[..., 0] - picture[..., 1]).mean() < 8
                assert (picture[..., 1] == picture[..., 2]).all()


def test_a_wrong_transform_shows_in_the_fusion(material, tmp_path):
    volumes, segmentations, transforms = material
    off = sitk.Euler3DTransform(movement("followup-1"))
    off.SetTranslation(tuple(np.add(off.GetTranslation(), (20.0, 0.0, 0.0))))
    analysis = example_analysis(lesions=())
    spread = []
    for transform in (transforms["followup-1"], off):
        made = key_images(analysis, volumes, segmentations, {"followup-1": transform})
        (group,) = [item for item in made if item.kind == "alignment"]
        picture = decoded(group.panels[0], tmp_path).astype(int)
        spread.append(np.abs(picture[..., 0] - picture[..., 1]).mean())
    assert spread[1] > 3 * spread[0]


def test_what_is_missing_is_left_out(material):
    volumes, segmentations, transforms = material
    analysis = example_analysis()
    assert key_images(analysis, {}, {}, {}) == ()
    bare = key_images(analysis, volumes, {}, {})
    assert {item.kind for item in bare} == {"overview", "lesion"}
    assert all(panel.contours == () for item in bare for panel in item.panels)
    assert not [panel for item in bare for panel in item.panels if panel.view == "registered"]
    without = key_images(analysis, {"followup-1": volumes["followup-1"]}, segmentations, transforms)
    assert {panel.timepoint for item in without for panel in item.panels} == {"followup-1"}
    nowhere = dataclasses.replace(
        analysis.lesions[0],
        observations=tuple(
            dataclasses.replace(item, long_axis_ends_lps_mm=None, centroid_lps_mm=None, centroid_reference_lps_mm=None)
            for item in analysis.lesions[0].observations
        ),
    )
    made = key_images(dataclasses.replace(analysis, lesions=(nowhere,)), volumes, segmentations, transforms)
    assert not [item for item in made if item.kind == "lesion"]


def test_a_lesion_at_the_border_of_the_scan_is_pictured(material):
    volumes, segmentations, transforms = material
    cut = {
        name: sitk.RegionOfInterest(image, [60, image.GetHeight(), image.GetDepth()], [0, 0, 0])
        for name, image in volumes.items()
    }
    made = key_images(example_analysis(), cut, segmentations, transforms)
    assert {item.lesion for item in made if item.kind == "lesion"} == set(LESIONS)


@pytest.mark.parametrize(
    ("organ", "name"),
    [
        ("lung", "lung window"),
        ("Pulmonary", "lung window"),
        ("hilar lung lymph node", "mediastinal window"),
        ("mediastinal lymph node", "mediastinal window"),
        ("pleura", "mediastinal window"),
        ("liver", "liver window"),
        ("rib", "bone window"),
    ],
)
def test_the_window_follows_the_organ(organ, name):
    assert window_for(organ).name == name


def test_the_window_maps_hu_to_grey():
    window = window_for("lung")
    grey = window.grey(np.array([-3000.0, -1350.0, -600.0, 150.0, 3000.0]))
    assert grey.tolist() == [0, 0, 128, 255, 255]


def test_scale_bars_are_round_and_fit():
    assert [scale_bar_mm(width) for width in (60.0, 90.0, 300.0, 400.0)] == [20.0, 20.0, 100.0, 100.0]


def test_cancelling_leaves_no_temporary_file_and_names_say_nothing(material, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = []

    def stop(fraction, message):
        names.extend(item.name for item in tmp_path.iterdir())
        if fraction > 0.4:
            raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        key_images(example_analysis(patient="DOE^JOHN"), *material, progress=stop)
    assert names
    assert all(re.fullmatch(r"pictures-\w+", name) for name in names)
    assert list(tmp_path.iterdir()) == []


def test_progress_runs_from_start_to_end(material):
    fractions = []
    key_images(example_analysis(), *material, progress=lambda fraction, message: fractions.append(fraction))
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    assert fractions == sorted(fractions)


def opacities(volumes, **balls):
    """A map of what is new at followup-1: balls of given centre (LPS) and radius, by segment."""
    image = volumes["followup-1"]
    z, y, x = np.indices(image.GetSize()[::-1])
    index = np.stack([x, y, z], axis=-1).astype(float)
    points = np.array(image.GetOrigin()) + (index * image.GetSpacing()) @ np.array(image.GetDirection()).reshape(3, 3).T
    masks = []
    for name, key in (("new ground-glass", "glass"), ("new consolidation", "solid")):
        centre, radius = balls.get(key, ((0.0, 0.0, 0.0), -1.0))
        masks.append((name, np.linalg.norm(points - centre, axis=-1) < radius))
    return {"followup-1": segmentation_from_arrays(masks, image)}


def test_what_is_new_in_the_lungs_is_pictured_where_it_lies(material, tmp_path):
    volumes, _, transforms = material
    at = np.array([-70.0, 10.0, 30.0])
    there = np.array(transforms["followup-1"].TransformPoint(at.tolist()))
    map_ = opacities(volumes, glass=(there, 24.0), solid=(there + np.array([0.0, 0.0, 60.0]), 13.0))
    # Consolidation is bright.
    solid = sitk.Cast(map_["followup-1"].mask("new consolidation"), sitk.sitkInt16)
    dense = {**volumes, "followup-1": sitk.Maximum(volumes["followup-1"], solid * 1030 - 1000)}
    made = key_images(example_analysis(), dense, {}, transforms, opacities=map_)
    (group,) = [item for item in made if item.kind == "lungs"]
    assert group.timepoint == "followup-1"
    assert [(item.plane, item.view) for item in group.panels] == [
        (plane, view) for plane in ("coronal", "axial") for view in ("own", "registered", "map")
    ]
    coronal = group.panels[2]
    plain, picture = decoded(group.panels[1], tmp_path).astype(float), decoded(coronal, tmp_path).astype(float)
    said = re.search(r"light blue \((\d+) cm² in this plane\)", coronal.description)
    assert float(said[1]) == pytest.approx(np.pi * 2.4**2, rel=0.15)
    coloured = np.ptp(picture, axis=2) > 8
    rows, columns = np.nonzero(coloured)
    assert coloured.sum() / 100.0 == pytest.approx(np.pi * (2.4**2 + 1.3**2), rel=0.15)
    # Right at the left and the head at the top: where it lies in the picture is where it lies in the patient.
    low = np.array(volumes["baseline"].GetOrigin())
    high = np.array(volumes["baseline"].TransformIndexToPhysicalPoint([n - 1 for n in volumes["baseline"].GetSize()]))
    glass = rows > rows.min() + 40
    assert columns[glass].mean() == pytest.approx(at[0] - min(low[0], high[0]), abs=4.0)
    assert rows[glass].mean() == pytest.approx(max(low[2], high[2]) - at[2], abs=4.0)
    # Without colour ground glass is told from consolidation by its stripes, and from what was there by being lighter.
    grey = picture @ [0.299, 0.587, 0.114]
    solid = coloured & (np.indices(coloured.shape)[0] < rows.min() + 24)
    assert np.ptp(grey[solid]) > 40
    assert (grey - plain)[coloured & ~solid].mean() > 20


def test_no_picture_where_nothing_is_new_or_nothing_is_aligned(material):
    volumes, segmentations, _ = material
    made = key_images(example_analysis(), *material, opacities=opacities(volumes))
    assert not [item for item in made if item.kind == "lungs"]
    map_ = opacities(volumes, glass=((-70.0, 10.0, 30.0), 24.0))
    made = key_images(example_analysis(), volumes, segmentations, {}, opacities=map_)
    assert not [item for item in made if item.kind == "lungs"]
