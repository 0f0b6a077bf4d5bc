"""Python packages that the engine needs beyond what Slicer brings; installed on the user's consent when first needed."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
from typing import Any

import slicer
from slicer.i18n import tr as _

# What is imported, and what is asked of pip for it. Radiomics need nothing: the engine has its own, equal to pyradiomics.
REQUIREMENTS = {
    "yaml": "PyYAML>=6",
    "jinja2": "jinja2>=3.1",
}
RADIOMICS_EXTENSION = "SlicerRadiomics"


class DeclinedError(RuntimeError):
    """The user does not want packages to be installed."""


def missingPackages() -> list[str]:
    """Return what pip would have to install."""
    importlib.invalidate_caches()
    return [requirement for name, requirement in REQUIREMENTS.items() if importlib.util.find_spec(name) is None]


def radiomicsIsMissing() -> bool:
    """Say whether neither SlicerRadiomics nor a package brings pyradiomics."""
    return importlib.util.find_spec("radiomics") is None


def ensurePackages() -> None:
    """Install what is missing after asking.

    :raises DeclinedError: if the user declines, pip fails, or packages are missing while Slicer is being tested.
    """
    missing = missingPackages()
    if not missing:
        return
    try:
        from slicer import packaging
    except ImportError:
        packaging = None
    if packaging is not None:
        try:
            packaging.pip_ensure(missing, requester="ImmunoRadiomics")
        except (RuntimeError, subprocess.CalledProcessError) as error:
            raise DeclinedError(_declined(missing)) from error
    elif slicer.app.testingEnabled() or not slicer.util.confirmOkCancelDisplay(
        _("Python packages need to be installed. This changes Slicer's Python. Continue?"),
        _("ImmunoRadiomics - Install Python packages"),
        detailedText="\n".join(missing),
    ):
        raise DeclinedError(_declined(missing))
    else:
        try:
            slicer.util.pip_install(missing)
        except subprocess.CalledProcessError as error:
            raise DeclinedError(_declined(missing)) from error
    if still := missingPackages():
        raise DeclinedError(_declined(still))


def _declined(missing: list[str]) -> str:
    return _("The analysis needs these Python packages, which are not installed: {names}.").format(
        names=", ".join(missing)
    )


def extensionsManager() -> Any:
    """Return Slicer's extensions manager (qSlicerExtensionsManagerModel), None where Slicer was built without it."""
    model = getattr(slicer.app, "extensionsManagerModel", None)
    return model() if model is not None else None


def offerRadiomicsExtension() -> None:
    """Offer to install SlicerRadiomics, which brings pyradiomics once Slicer has been restarted.

    Until then, and where there is no extensions manager or the user declines, the engine computes the same features itself.
    """
    model = extensionsManager()
    if model is None or not radiomicsIsMissing() or slicer.app.testingEnabled():
        return
    if model.isExtensionInstalled(RADIOMICS_EXTENSION):  # it waits for the restart, or fits this platform badly
        return
    if not slicer.util.confirmYesNoDisplay(
        _(
            "The extension SlicerRadiomics brings pyradiomics, the reference for radiomics. Without it the same features are "
            "computed by this module itself, also in this run. Install SlicerRadiomics for the next start of Slicer?"
        ),
        _("ImmunoRadiomics - SlicerRadiomics"),
    ):
        return
    asks = model.interactive
    # Asked once already; and a restart now would end Slicer without saving the scene.
    model.interactive = False
    try:
        installed = model.installExtensionFromServer(RADIOMICS_EXTENSION, False)
    finally:
        model.interactive = asks
    if not installed:
        slicer.util.errorDisplay(
            _("SlicerRadiomics could not be installed. The analysis goes on without it."),
            windowTitle=_("ImmunoRadiomics"),
        )
