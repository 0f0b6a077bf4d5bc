"""Radiomics: features of regions through pyradiomics, exactly as it defines them, and their change over time."""

from .deltas import feature_deltas
from .extraction import extract, software_versions
from .presets import Preset, load_preset, preset_names

__all__ = ["Preset", "extract", "feature_deltas", "load_preset", "preset_names", "software_versions"]
