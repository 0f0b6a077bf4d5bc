"""The features of the image biomarker standardisation initiative, exactly as its reference manual defines them."""

from .catalogue import FEATURES, WITHOUT_CONSENSUS, Feature, columns
from .measurement import measure
from .settings import Discretisation, IbsiSettings, Interpolation

__all__ = [
    "FEATURES",
    "WITHOUT_CONSENSUS",
    "Discretisation",
    "Feature",
    "IbsiSettings",
    "Interpolation",
    "columns",
    "measure",
]
