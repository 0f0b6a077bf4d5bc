"""What a person reads: tables, key images and the page of one patient.

The report only formats: every number that it shows stands in the ``Analysis``, but for differences and thresholds of the
response criteria that it writes beside them.
"""

from .figures import KeyImage, Panel, key_images
from .html import render_report, write_report
from .pdf import write_pdf
from .tables import write_stage_tables, write_tables

__all__ = [
    "KeyImage",
    "Panel",
    "key_images",
    "render_report",
    "write_pdf",
    "write_report",
    "write_stage_tables",
    "write_tables",
]
