"""Radiomics: features of regions as pyradiomics defines them, by its classes or by our own engine, and their change over time."""

from .deltas import feature_deltas
from .extraction import extract, software_versions
from .presets import Preset, load_preset, preset_names

__all__ = ["Preset", "extract", "feature_deltas", "load_preset", "preset_names", "software_versions"]
