"""The features of the image biomarker standardisation initiative, exactly as its reference manual defines them."""

from .catalogue import FEATURES, WITHOUT_CONSENSUS, Feature, columns
from .measurement import measure
from .settings import Discretisation, IbsiSettings, Interpolation

# Changes whenever a value does; the definitions are those of the manual.
VERSION = "1 (reference manual arXiv:1612.07003)"

__all__ = [
    "FEATURES",
    "VERSION",
    "WITHOUT_CONSENSUS",
    "Discretisation",
    "Feature",
    "IbsiSettings",
    "Interpolation",
    "columns",
    "measure",
]
