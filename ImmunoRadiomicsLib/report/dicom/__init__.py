"""DICOM out: segmentations, structured reports and the report of a patient as PDF."""

from .export import ExportResult, export_dicom

__all__ = ["ExportResult", "export_dicom"]
