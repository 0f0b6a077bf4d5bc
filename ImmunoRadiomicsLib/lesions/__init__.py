"""Lungs, lesions, their regions, their measures, and which lesion is which over time."""

from __future__ import annotations

from .find import Found, find
from .lungs import AnatomyResult, measure_lungs, segment_anatomy
from .measurement import Measurement, measure

__all__ = ["AnatomyResult", "Found", "Measurement", "find", "measure", "measure_lungs", "segment_anatomy"]
