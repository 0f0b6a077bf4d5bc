"""What the lesion stage found, as files, so that a later run can take it over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .analysis import Lesion, LungChange, LungMeasures
from .errors import StageError
from .files import whole_file
from .images import RegionMask
from .serialise import from_json, to_json
from .workspace import write_json

_LISTS = {"lesions": Lesion, "lungs": LungMeasures, "lung_changes": LungChange, "warnings": str}


def write_found(folder: Path, *, regions: Sequence[RegionMask], **lists: Sequence[object]) -> None:
    """Write the lists of results (`lesions`, `lungs`, `lung_changes`, `warnings`) and the voxels of the regions."""
    write_json(folder / "found.json", {name: to_json(tuple(lists[name])) for name in _LISTS})
    keys = [[item.timepoint, item.lesion, item.region, item.offset_zyx, item.voxels.shape] for item in regions]
    write_json(folder / "regions.json", to_json(keys))
    bits = {str(index): np.packbits(item.voxels) for index, item in enumerate(regions)}
    with whole_file(folder / "regions.npz") as temporary:
        np.savez_compressed(temporary, **bits)  # type: ignore[arg-type]


def read_lists(folder: Path) -> dict[str, tuple]:
    """Read what ``write_found`` wrote, without the regions."""
    content = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return {name: tuple(from_json(kind, item, name) for item in content[name]) for name, kind in _LISTS.items()}


def read_regions(folder: Path) -> tuple[RegionMask, ...]:
    """Read the regions that ``write_found`` wrote."""
    keys = json.loads((folder / "regions.json").read_text(encoding="utf-8"))
    regions = []
    with np.load(folder / "regions.npz", allow_pickle=False) as bits:
        if len(bits.files) != len(keys):
            raise StageError(
                "The kept regions are damaged. Delete the hidden .partial folder beside the output and run again."
            )
        for index, (timepoint, lesion, region, offset, shape) in enumerate(keys):
            voxels = np.unpackbits(bits[str(index)], count=int(np.prod(shape))).astype(bool).reshape(shape)
            regions.append(RegionMask(timepoint, lesion, region, (offset[0], offset[1], offset[2]), voxels))
    return tuple(regions)
