"""Response criteria, growth kinetics and atypical patterns: pure functions over measurements, no images needed."""

from .engine import ResponseSettings, respond
from .measurements import Measurement
from .reading import MeasurementTable, read_measurements
from .recist import BestResponseSettings
from .settings import with_settings

__all__ = [
    "BestResponseSettings",
    "Measurement",
    "MeasurementTable",
    "ResponseSettings",
    "read_measurements",
    "respond",
    "with_settings",
]
