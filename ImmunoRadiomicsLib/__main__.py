"""``python -m ImmunoRadiomicsLib`` is the same as ``immunoradiomics``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
