"""Bundles of the user's own: folders that replace what answers a flag, verified before they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from ImmunoRadiomicsLib.errors import ImmunoRadiomicsError

from .ParameterNode import ImmunoRadiomicsParameterNode


@dataclass(frozen=True)
class OwnBundle:
    """A bundle folder as the panel shows it; ``problem`` is why it is refused, empty where it is not."""

    folder: str
    flag: str
    title: str
    weight: str
    problem: str


def bundleFolders(parameters: ImmunoRadiomicsParameterNode) -> list[str]:
    """Return the bundle folders that were chosen for a patient."""
    return [line for line in parameters.bundles.split("\n") if line]


def setBundleFolders(parameters: ImmunoRadiomicsParameterNode, folders: Sequence[str]) -> None:
    """Choose bundle folders for a patient."""
    parameters.bundles = "\n".join(dict.fromkeys(folders))


class BundleReader:
    """Verifies bundle folders, each again only when one of its files has changed: the panel asks at every update."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, ...], tuple[object, tuple[OwnBundle, ...]]] = {}

    def read(self, folders: Sequence[str]) -> tuple[OwnBundle, ...]:
        """Return what the folders hold, and what is wrong with each, alone and beside the others."""
        key = tuple(folders)
        stamp = tuple(_stamp(Path(folder)) for folder in folders)
        known = self._read.get(key)
        if known is None or known[0] != stamp:
            found: list[OwnBundle] = []
            for folder in folders:
                found.append(_verified(folder, [item.folder for item in found if not item.problem]))
            known = self._read[key] = (stamp, tuple(found))
        return known[1]


def _verified(folder: str, accepted: Sequence[str]) -> OwnBundle:
    from ImmunoRadiomicsLib.classifiers import load_bundle
    from ImmunoRadiomicsLib.classifiers.arm import external_weight
    from ImmunoRadiomicsLib.classifiers.flags import choose_bundles

    try:
        bundle = load_bundle(Path(folder))
    except ImmunoRadiomicsError as error:
        return OwnBundle(folder, "", Path(folder).name, "", str(error))
    card = bundle.card
    weight = _("evidence model") if bundle.predictor is None else external_weight(card)[1]
    try:
        choose_bundles([Path(item) for item in (*accepted, folder)])
    except ImmunoRadiomicsError as error:
        return OwnBundle(folder, card.flag, card.title, weight, str(error))
    return OwnBundle(folder, card.flag, card.title, weight, "")


def _stamp(folder: Path) -> object:
    try:
        files = sorted(item for item in folder.iterdir() if item.is_file())
        return tuple((item.name, (state := item.stat()).st_mtime_ns, state.st_size) for item in files)
    except OSError as error:
        return str(error)
