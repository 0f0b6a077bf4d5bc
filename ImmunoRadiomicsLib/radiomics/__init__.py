"""Radiomics: features of regions as pyradiomics defines them, by its classes or by our own engine, and their change over time."""

from .beside import Beside, extract_beside, presets_beside
from .deltas import feature_deltas
from .extraction import extract, software_versions
from .presets import Preset, load_preset, preset_names

__all__ = [
    "Beside",
    "Preset",
    "extract",
    "extract_beside",
    "feature_deltas",
    "load_preset",
    "preset_names",
    "presets_beside",
    "software_versions",
]
