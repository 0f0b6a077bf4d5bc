"""A small patient on disk, as ``analyze`` leaves one, for tests of the scene."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from factories import example_analysis, example_images, movement
from scipy.ndimage import gaussian_filter

from ImmunoRadiomicsLib.analysis import Analysis
from ImmunoRadiomicsLib.images import segmentation_from_arrays, write_segmentation, write_volume
from ImmunoRadiomicsLib.study import Study, Timepoint

# An oblique grid: geometry that is only right for axial images is found out.
TILTED = np.array(sitk.Euler3DTransform((0, 0, 0), 0.1, -0.2, 0.3).GetMatrix()).reshape(3, 3)
SPACING_MM = 6.0


def bent(timepoint: str) -> sitk.Transform:
    """Baseline to follow-up LPS points: a smooth bend of some mm on a 4 mm grid, then the movement of the time point."""
    random = np.random.default_rng(11)
    field = np.stack([gaussian_filter(random.normal(size=(90, 80, 100)), 8) for _ in range(3)], axis=-1)
    grid = sitk.GetImageFromArray(field * 6.0 / np.abs(field).max(), isVector=True)
    grid.SetSpacing((4.0, 4.0, 4.0))
    grid.SetOrigin((-198.0, -158.0, -178.0))
    return sitk.CompositeTransform([movement(timepoint), sitk.DisplacementFieldTransform(grid)])


def write_patient(folder: Path, patient: str = "P001") -> tuple[Analysis, Study]:
    """Write volumes to ``folder`` and results to ``folder/out``: followup-1 is oblique, its transform bends, the others are rigid."""
    volumes, segmentations, _ = example_images(SPACING_MM, {"followup-1": TILTED})
    analysis = example_analysis(patient=patient)
    (folder / "out" / "transforms").mkdir(parents=True)
    records = []
    for record in analysis.alignments:
        name = f"transforms/{record.timepoint}.h5"
        moved = bent(record.timepoint) if record.timepoint == "followup-1" else movement(record.timepoint)
        sitk.WriteTransform(moved, str(folder / "out" / name))
        records.append(dataclasses.replace(record, transform_file=name))
    timepoints = []
    for record in analysis.timepoints:
        path = folder / f"{record.name}.nrrd"
        write_volume(volumes[record.name], path)
        segmentation = segmentations[record.name]
        masks = [(segment.name, segmentation.array(segment.name)) for segment in segmentation.segments]
        air = sitk.GetArrayViewFromImage(volumes[record.name]) < -700
        half = np.arange(air.shape[2]) < air.shape[2] // 2
        masks += [("right lung", air & half), ("left lung", air & ~half)]
        whole = segmentation_from_arrays(masks, volumes[record.name])
        write_segmentation(whole, folder / "out" / "segmentations" / f"{record.name}.seg.nrrd")
        if record.name == "followup-1":
            new = [
                ("new ground-glass", air & half & (np.arange(len(air)) < 8)[:, None, None]),
                ("new consolidation", air & False),
            ]
            name = f"segmentations/{record.name}.opacities.seg.nrrd"
            write_segmentation(segmentation_from_arrays(new, volumes[record.name]), folder / "out" / name)
            analysis = dataclasses.replace(
                analysis,
                lung_changes=tuple(
                    dataclasses.replace(item, map_file=name)
                    if (item.timepoint, item.part) == (record.name, "both")
                    else item
                    for item in analysis.lung_changes
                ),
            )
        timepoints.append(Timepoint(record.name, datetime.date.fromisoformat(record.date), path))
    return dataclasses.replace(analysis, alignments=tuple(records)), Study(patient, tuple(timepoints), tumour="NSCLC")
