"""The panel of the ImmunoRadiomics module: everything that knows Slicer's interface.

The engine lies beside the module: in the same folder where the extension is installed, one folder up in a checkout.
"""

from __future__ import annotations

import sys
from pathlib import Path


def engineFolder() -> Path:
    """Return the folder that holds the package ``ImmunoRadiomicsLib``.

    :raises ImportError: if the installation lacks it.
    """
    here = Path(__file__).resolve().parent
    for folder in (here.parent, here.parent.parent):
        if (folder / "ImmunoRadiomicsLib" / "__init__.py").is_file():
            return folder
    raise ImportError("The installation is incomplete: the package ImmunoRadiomicsLib is missing. Install it again.")


# The files of this package import the engine; Slicer itself only puts the folder of the module on the path.
if str(engineFolder()) not in sys.path:
    sys.path.append(str(engineFolder()))
