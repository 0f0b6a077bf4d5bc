"""Volumes and segmentations: what is read, and each bad input with its own message."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ImmunoRadiomicsLib import images
from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.files import sha256_of, whole_file

SHAPE = (12, 30, 40)
FLIPPED = (1, 0, 0, 0, -1, 0, 0, 0, -1)
MASS = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^49755003^Morphologically Altered Structure"
    "~SCT^4147007^Mass~^^~Anatomic codes - DICOM master list~^^~^^"
)


def volume(values: np.ndarray | None = None, direction: tuple[float, ...] = FLIPPED) -> sitk.Image:
    if values is None:
        values = np.random.default_rng(1).normal(-500, 200, SHAPE).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.8, 1.25))
    image.SetOrigin((-100.5, 20.25, 3.0))
    image.SetDirection(direction)
    return image


def boxes(*corners: tuple[int, int]) -> list[np.ndarray]:
    masks = []
    for start, end in corners:
        mask = np.zeros(SHAPE, dtype=bool)
        mask[2:9, start:end, start:end] = True
        masks.append(mask)
    return masks


def problem(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".nii", ".mha"])
def test_a_volume_survives_the_file(tmp_path: Path, suffix: str) -> None:
    original = volume()
    images.write_volume(original, tmp_path / f"ct{suffix}")
    read = images.read_volume(tmp_path / f"ct{suffix}")
    assert images.grid_difference(read, original) is None
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(original))
    assert os.listdir(tmp_path) == [f"ct{suffix}"]


def test_bad_volumes(tmp_path: Path) -> None:
    path = tmp_path / "ct.nrrd"
    assert "does not exist" in problem(lambda: images.read_volume(path))
    path.write_text("not an image")
    assert "cannot be read" in problem(lambda: images.read_volume(path))

    values = np.full(SHAPE, -500, dtype=np.float32)
    values[3, 4, 5] = np.nan
    sitk.WriteImage(volume(values), path)
    assert "1 voxels are not a number" in problem(lambda: images.read_volume(path))

    sitk.WriteImage(sitk.GetImageFromArray(np.full((30, 40), -100, np.int16)), path)
    assert "two-dimensional (40 x 30" in problem(lambda: images.read_volume(path))
    sitk.WriteImage(sitk.GetImageFromArray(np.full((1, 30, 40), -100, np.int16)), path)
    assert "two-dimensional (40 x 30 x 1" in problem(lambda: images.read_volume(path))

    sitk.WriteImage(volume(np.full((*SHAPE, 3), 7, np.uint8)), path)
    assert "3 values per voxel" in problem(lambda: images.read_volume(path))

    sitk.WriteImage(volume(np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)), path)
    assert "not in HU" in problem(lambda: images.read_volume(path))
    assert images.read_volume(path, ct=False).GetSize() == SHAPE[::-1]

    sitk.WriteImage(volume(), path, useCompression=False)
    path.write_bytes(path.read_bytes()[:-500])
    assert "cut short" in problem(lambda: images.read_volume(path))
    (tmp_path / "ct.xyz").touch()
    assert "format is not known" in problem(lambda: images.read_volume(tmp_path / "ct.xyz"))
    (tmp_path / "empty").mkdir()
    assert "0 DICOM series" in problem(lambda: images.read_volume(tmp_path / "empty"))


def test_a_volume_without_spacing(tmp_path: Path) -> None:
    values = np.full(SHAPE, -300, dtype="<i2")
    sizes = " ".join(map(str, SHAPE[::-1]))
    nrrd = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {sizes}\nendian: little\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(nrrd.encode() + values.tobytes())
    mha = f"ObjectType = Image\nNDims = 3\nDimSize = {sizes}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "b.mha").write_bytes(mha.encode() + values.tobytes())
    sitk.WriteImage(volume(), tmp_path / "c.nii")
    content = bytearray((tmp_path / "c.nii").read_bytes())
    content[80:92] = struct.pack("<3f", 0, 0, 0)
    (tmp_path / "c.nii").write_bytes(content)
    for name in ("a.nrrd", "b.mha", "c.nii"):
        assert "spacing" in problem(lambda name=name: images.read_volume(tmp_path / name))


def test_a_dicom_series_is_one_volume(tmp_path: Path) -> None:
    original = volume(direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index in range(original.GetDepth()):
        piece = original[:, :, index]
        position = original.TransformIndexToPhysicalPoint((0, 0, index))
        for tag, value in {
            "0008|0060": "CT",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.3.{index + 1}",
            "0020|0032": "\\".join(f"{part:.6f}" for part in position),
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(index),
            "0028|1052": "0",
            "0028|1053": "1",
        }.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / f"{(index * 7) % 12:03d}.dcm"))
        writer.Execute(piece)
    read = images.read_volume(tmp_path)
    assert images.grid_difference(read, original) is None
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(original))


def test_overlapping_segments_survive_the_file(tmp_path: Path) -> None:
    reference = volume()
    first, second, third = boxes((2, 10), (6, 20), (25, 28))
    written = images.segmentation_from_arrays(
        [("L1", first), ("L2", second), ("N1", third)], reference, colours={"L1": (1, 0, 0)}, terminologies={"L1": MASS}
    )
    assert len(written.layers) == 2
    images.write_segmentation(written, tmp_path / "a.seg.nrrd")
    read = images.read_segmentation(tmp_path / "a.seg.nrrd", reference)
    for name, mask in (("L1", first), ("L2", second), ("N1", third)):
        np.testing.assert_array_equal(read.array(name), mask)
    assert read.segments == written.segments
    assert read.segment("L1").terminology == MASS


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_any_number_of_layers(tmp_path: Path, count: int) -> None:
    masks = boxes(*[(2, 10 + extra) for extra in range(count)])
    named = [(f"L{index}", mask) for index, mask in enumerate(masks)]
    images.write_segmentation(images.segmentation_from_arrays(named, volume()), tmp_path / "a.seg.nrrd")
    read = images.read_segmentation(tmp_path / "a.seg.nrrd", volume())
    for name, mask in named:
        np.testing.assert_array_equal(read.array(name), mask)


def test_a_cropped_segmentation_of_the_same_grid_is_put_in_place(tmp_path: Path) -> None:
    reference = volume()
    (mask,) = boxes((6, 20))
    whole = images.segmentation_from_arrays([("L1", mask)], reference)
    cropped = images.Segmentation((sitk.RegionOfInterest(whole.layers[0], [20, 18, 9], [4, 5, 1]),), whole.segments)
    images.write_segmentation(cropped, tmp_path / "a.seg.nrrd")
    read = images.read_segmentation(tmp_path / "a.seg.nrrd", reference)
    np.testing.assert_array_equal(read.array("L1"), mask)


def test_label_maps_are_named_by_their_values(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.float32)
    labels[3, 4:8, 4:8] = 3
    labels[5, 4:8, 4:8] = 7
    sitk.WriteImage(volume(labels), tmp_path / "mask.nii.gz")
    read = images.read_segmentation(tmp_path / "mask.nii.gz", volume())
    assert [segment.name for segment in read.segments] == ["L3", "L7"]
    assert read.array("L7").sum() == 16


def with_names(path: Path, names: dict[int, str]) -> None:
    """Put the names of labels after the header of a NIfTI-1 file, where TotalSegmentator puts them."""
    rows = "\n".join(
        f'<Label Key="{key}" Red="1.0" Alpha="1"><![CDATA[{name}]]></Label>' for key, name in names.items()
    )
    text = f'<CaretExtension><VolumeInformation Index="0"><LabelTable>{rows}</LabelTable></VolumeInformation></CaretExtension>'
    block = text.encode().ljust(-(-(len(text) + 8) // 16) * 16 - 8)
    content = gzip.decompress(path.read_bytes())
    header, voxels = bytearray(content[:348]), content[352:]
    struct.pack_into("<f", header, 108, 352 + 8 + len(block))
    size = struct.pack("<ii", 8 + len(block), 0)
    path.write_bytes(gzip.compress(bytes(header) + b"\1\0\0\0" + size + block + voxels))


def test_a_label_map_that_brings_names_uses_them(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 4:8, 4:8], labels[5, 4:8, 4:8], labels[7, 4:8, 4:8] = 10, 16, 200
    path = tmp_path / "mask.nii.gz"
    sitk.WriteImage(volume(labels), path)
    with_names(path, {1: "spleen", 10: "lung_upper_lobe_left", 16: "trachea"})
    read = images.read_segmentation(path, volume())
    assert [segment.name for segment in read.segments] == ["lung_upper_lobe_left", "trachea", "L200"]
    np.testing.assert_array_equal(read.array("lung_upper_lobe_left"), labels == 10)


def test_bad_segmentations(tmp_path: Path) -> None:
    reference = volume()
    path = tmp_path / "mask.nrrd"
    assert "does not exist" in problem(lambda: images.read_segmentation(path, reference))

    sitk.WriteImage(volume(np.zeros(SHAPE, np.uint8)), path)
    assert "empty" in problem(lambda: images.read_segmentation(path, reference))
    assert images.read_segmentation(path, reference, may_be_empty=True).segments == ()

    labels = np.zeros(SHAPE, np.uint8)
    labels[4:6, 4:6, 4:6] = 1
    moved = volume(labels)
    moved.SetOrigin((-100.5, 20.25, 3.4))
    sitk.WriteImage(moved, path)
    message = problem(lambda: images.read_segmentation(path, reference))
    assert "another grid" in message
    assert "3.4" in message
    sitk.WriteImage(volume(labels, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)), path)
    assert "another grid" in problem(lambda: images.read_segmentation(path, reference))
    sitk.WriteImage(volume(np.pad(labels, 1)), path)
    assert "(42, 32, 14)" in problem(lambda: images.read_segmentation(path, reference))

    sitk.WriteImage(volume(labels.astype(np.float32) * 0.4), path)
    assert "probability" in problem(lambda: images.read_segmentation(path, reference))
    sitk.WriteImage(volume(labels.astype(np.int16) * -3), path)
    assert "between 0 and 65535" in problem(lambda: images.read_segmentation(path, reference))


def test_a_grid_may_differ_by_rounding_only() -> None:
    reference, near = volume(), volume()
    near.SetOrigin(tuple(value + 1e-4 for value in reference.GetOrigin()))
    assert images.grid_difference(near, reference) is None
    near.SetSpacing((0.701, 0.8, 1.25))
    assert images.grid_difference(near, reference) is not None


def test_a_region_is_a_crop_that_can_be_pasted_back() -> None:
    (mask,) = boxes((6, 20))
    region = images.RegionMask.from_array("baseline", "L1", "core", mask)
    assert region.voxels.shape == (7, 14, 14)
    assert region.offset_zyx == (2, 6, 6)
    assert region.count == mask.sum()
    np.testing.assert_array_equal(region.paste(SHAPE), mask)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(region.image(volume())) > 0, mask)
    assert images.RegionMask.from_array("baseline", "L1", "core", np.zeros(SHAPE, bool)).count == 0


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.seg.nrrd"

    def interrupted() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert os.listdir(tmp_path) == []
    with whole_file(path) as temporary:
        assert temporary.suffixes[-2:] == [".seg", ".nrrd"]
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == ["a.seg.nrrd"]
    assert sha256_of(path) == sha256_of(tmp_path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("share", [0.5, 0.98])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"ct{suffix}"
    images.write_volume(volume(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "cut short" in problem(lambda: images.read_volume(path))


def test_a_nifti_file_is_read_whatever_its_name_says_of_packing(tmp_path: Path) -> None:
    images.write_volume(volume(), tmp_path / "ct.nii")
    (tmp_path / "ct.nii").rename(tmp_path / "ct.nii.gz")
    read = images.read_volume(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(volume()))


def test_a_packed_file_with_wrong_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii.gz"
    images.write_volume(volume(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert "damaged" in problem(lambda: images.read_volume(path))


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ct.nrrd"
    images.write_volume(volume(), path)

    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    for read in (lambda: images.read_volume(path), lambda: images.read_segmentation(path, volume())):
        assert "cannot be opened (Permission denied)" in problem(read)


@pytest.mark.parametrize("size_mm", [0.0007, 700.0])
def test_a_spacing_in_another_unit(tmp_path: Path, size_mm: float) -> None:
    image = volume()
    image.SetSpacing((size_mm, size_mm, size_mm))
    images.write_volume(image, tmp_path / "ct.nrrd")
    assert "cannot be in mm" in problem(lambda: images.read_volume(tmp_path / "ct.nrrd"))


def test_blank_and_normalised_volumes_are_no_ct(tmp_path: Path) -> None:
    for values in (np.full(SHAPE, -1000, np.int16), np.random.default_rng(0).uniform(-1, 1, SHAPE).astype(np.float32)):
        images.write_volume(volume(values), tmp_path / "ct.nrrd")
        assert "not in HU" in problem(lambda: images.read_volume(tmp_path / "ct.nrrd"))


def described(path: Path, image: sitk.Image, **header: str) -> Path:
    for key, value in header.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path))
    return path


def test_segments_of_slicer_before_4_11_have_a_layer_each(tmp_path: Path) -> None:
    reference = volume()
    masks = boxes((5, 15), (10, 20))
    layers = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    for layer in layers:
        layer.CopyInformation(reference)
    names = {"Segment0_ID": "a", "Segment0_Name": "A", "Segment1_ID": "b", "Segment1_Name": ""}
    path = described(tmp_path / "old.seg.nrrd", sitk.Compose(layers), **names)
    read = images.read_segmentation(path, reference)
    assert [segment.name for segment in read.segments] == ["A", "b"]
    for segment, mask in zip(read.segments, masks, strict=True):
        np.testing.assert_array_equal(read.array(segment.name), mask)


@pytest.mark.parametrize(
    "header",
    [{"Segment0_Color": "red"}, {"Segment0_Color": "1 0"}, {"Segment0_LabelValue": "one"}, {"Segment0_Layer": "3"}],
)
def test_a_broken_segment_description(tmp_path: Path, header: dict[str, str]) -> None:
    reference = volume()
    image = sitk.GetImageFromArray(boxes((5, 15))[0].astype(np.uint8))
    image.CopyInformation(reference)
    path = described(tmp_path / "broken.seg.nrrd", image, Segment0_ID="a", **header)
    assert "segment 1" in problem(lambda: images.read_segmentation(path, reference))


def test_the_hash_of_a_detached_header_covers_the_voxels(tmp_path: Path) -> None:
    for suffix in (".mhd", ".nhdr"):
        path = tmp_path / f"ct{suffix}"
        sitk.WriteImage(volume(), str(path))
        header, before = path.read_bytes(), images.image_sha256(path)
        assert images.image_sha256(path) == before
        sitk.WriteImage(volume() + 1, str(path))
        assert path.read_bytes() == header
        assert images.image_sha256(path) != before


def test_a_full_disk_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("ITK ERROR: could not write")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    with pytest.raises(RuntimeError):
        images.write_volume(volume(), tmp_path / "ct.nrrd")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(OSError, match="No space left") as caught:
        images.write_volume(volume(), tmp_path / "ct.nrrd")
    assert caught.value.filename == str(tmp_path)
    assert not os.listdir(tmp_path)
