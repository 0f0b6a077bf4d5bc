"""Baseline and follow-up brought onto each other: engines behind one function, and the quality of the result."""

from ..transforms import invert_points, transform_points
from .engine import ENGINES, Alignment, align, write_transforms
from .resampling import read_transform, resample, resample_mask, write_transform

__all__ = [
    "ENGINES",
    "Alignment",
    "align",
    "invert_points",
    "read_transform",
    "resample",
    "resample_mask",
    "transform_points",
    "write_transform",
    "write_transforms",
]
