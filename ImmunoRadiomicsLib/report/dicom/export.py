"""A result as DICOM: a segmentation and a structured report (TID 1500) for each time point, and the report as an encapsulated PDF.

Where the study was imported from DICOM and its files are given, the objects refer to those instances and carry their patient and study.
Otherwise the volumes are written as derived CT instances under the patient's name in the study, and the objects refer to these.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from ...analysis import Analysis, Lesion, LesionObservation, TimepointRecord, Visit
from ...dicom.headers import load_pydicom
from ...dicom.sources import SOURCES_FILE, Sources, read_sources
from ...errors import InputError, MissingDependencyError
from ...images import Segmentation, read_segmentation, read_volume
from ...progress import Progress, part, silent
from ...study import Study
from . import codes
from .images import MANUFACTURER, MODEL, Subject, check_geometry, derived_instances, find_sources, new_file

if TYPE_CHECKING:
    from pydicom import Dataset

_PDF_CLASS = "1.2.840.10008.5.1.4.1.1.104.1"
_SERIES = {"seg": 9001, "sr": 9002, "pdf": 9003}
_BASELINE = ("C1442488", "UMLS", "Baseline")


@dataclass(frozen=True)
class ExportResult:
    """What was written, and what a reader should know of it."""

    folder: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def export_dicom(
    analysis: Analysis,
    study: Study,
    result: Path,
    out: Path,
    *,
    dicom: Path | None = None,
    key_file: Path | None = None,
    pdf: Path | None = None,
    progress: Progress = silent,
) -> ExportResult:
    """Write a result as DICOM.

    Parameters
    ----------
    analysis, study
        The result, and the study that it was made of.
    result
        The output folder of the analysis, for its segmentations.
    out
        A new or empty folder, or an earlier export; it appears when it is complete. It gets a folder for each time point with seg.dcm, sr.dcm and, where
        instances had to be derived, a folder ct; the latest one also gets report.dcm, the PDF.
    dicom
        The folder that the study was imported from.
    key_file
        The key of a pseudonymised import; needed with ``dicom``.
    pdf
        The report of the patient.

    Raises
    ------
    InputError
        If folders do not hold what they should.
    MissingDependencyError
        If highdicom is not installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "DICOM export needs highdicom. Install it: pip install immunoradiomics[dicom]"
        ) from error
    _check_out(out)
    folder = study.baseline.ct.parent
    sources = read_sources(folder)
    found: dict[str, tuple[Dataset, ...]] = {}
    identified = False
    if dicom is not None:
        if sources is None:
            raise InputError(
                f"{folder}: there is no {SOURCES_FILE}: the study was not imported from DICOM. Export without --dicom."
            )
        found = find_sources(sources, dicom, key_file, part(progress, 0.0, 0.2))
        identified = sources.hashed and bool(found)
    partial = out.with_name(f".{out.name}.partial-{secrets.token_hex(4)}")
    try:
        work = _Export(analysis, study, result, partial, sources, found)
        for index, item in enumerate(analysis.timepoints):
            progress(0.2 + 0.75 * index / len(analysis.timepoints), f"exporting {item.name}")
            work.timepoint(item)
        if pdf is not None:
            work.pdf(pdf.read_bytes())
        _publish(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress(1.0, "done")
    files = tuple(out / path.relative_to(partial) for path in work.files)
    if identified:
        work.notes.append("the objects name the patient as the DICOM files do: the export is no longer pseudonymised")
    return ExportResult(out, files, tuple(work.notes))


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: this is a file. Give a folder for the output.")
    if out.is_dir() and any(out.iterdir()) and not list(out.glob("*/sr.dcm")):
        raise InputError(f"{out}: the folder holds other files. Give a new or empty folder for the output.")


def _publish(partial: Path, out: Path) -> None:
    previous = out.with_name(f".{out.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        os.replace(out, previous)
    os.replace(partial, out)
    shutil.rmtree(previous, ignore_errors=True)


class _Export:
    """One run of the export."""

    def __init__(
        self,
        analysis: Analysis,
        study: Study,
        result: Path,
        folder: Path,
        sources: Sources | None,
        found: Mapping[str, Sequence[Dataset]],
    ):
        self.analysis, self.study, self.result, self.folder = analysis, study, result, folder
        self.sources, self.found = sources, found
        self.files: list[Path] = []
        self.notes: list[str] = []
        hashes = analysis.provenance.inputs_sha256
        # The name of a patient is rarely unique; the first CT that lesions are counted from is.
        self.seed = hashes.get(f"{analysis.baseline}.ct", "")
        whole = "".join((analysis.provenance.created, *sorted(hashes.values()), analysis.provenance.code_sha256))
        self.run = hashlib.sha256(whole.encode()).hexdigest()
        self.images: dict[str, Sequence[Dataset]] = {}

    def timepoint(self, item: TimepointRecord) -> None:
        """Write the objects of one time point."""
        planned = next(entry for entry in self.study.timepoints if entry.name == item.name)
        volume = read_volume(planned.ct)
        folder = self.folder / item.name
        folder.mkdir(parents=True)
        images = self.found.get(item.name)
        if images is not None and self.sources is not None:
            source = next(entry for entry in self.sources.timepoints if entry.timepoint == item.name)
            check_geometry(source, images, volume)
        else:
            images = self._derive(item, volume, folder / "ct")
        self.images[item.name] = images
        segmentation = read_segmentation(
            self.result / "segmentations" / f"{item.name}.seg.nrrd", volume, may_be_empty=True
        )
        seg, numbers = self._segmentation(item, images, segmentation)
        if seg is not None:
            self._save(seg, folder / "seg.dcm")
        self._save(self._report(item, images, seg, numbers), folder / "sr.dcm")

    def _derive(self, item: TimepointRecord, volume: sitk.Image, folder: Path) -> Sequence[Dataset]:
        why = "the DICOM files were not given" if self.sources is not None else "the study did not come from DICOM"
        if item.name not in self.found and self.found:
            why = "the volume was resampled"
        self.notes.append(f"{item.name}: derived CT instances were written, because {why}")
        folder.mkdir(parents=True)
        images = []
        for index, data in enumerate(derived_instances(volume, self._subject(item)), start=1):
            self._save(data, folder / f"{index:04d}.dcm")
            del data.PixelData
            images.append(data)
        return images

    def _subject(self, item: TimepointRecord) -> Subject:
        date = datetime.date.fromisoformat(item.date)
        return Subject(self.analysis.patient, item.name, date, self.seed, self.analysis.provenance.version)

    def _save(self, data: Dataset, path: Path) -> None:
        data.save_as(path, enforce_file_format=True)
        self.files.append(path)

    def _uid(self, *words: str) -> str:
        return codes.derived_uid(self.run, self.analysis.patient, *words)

    def _tracking(self, lesion: str) -> tuple[str, str]:
        """Return identifier and UID of a lesion: those it had in the DICOM files, else ones that always stand for it."""
        for item in self.sources.tracking if self.sources is not None else ():
            if item.lesion == lesion:
                return item.id, item.uid
        return lesion, codes.derived_uid(self.seed, self.analysis.patient, lesion)

    def _general(self, kind: str, item: TimepointRecord) -> dict[str, Any]:
        return {
            "series_instance_uid": self._uid(kind, "series", item.name),
            "series_number": _SERIES[kind],
            "sop_instance_uid": self._uid(kind, "instance", item.name),
            "instance_number": 1,
        }

    def _segmentation(
        self, item: TimepointRecord, images: Sequence[Dataset], segmentation: Segmentation
    ) -> tuple[Any, dict[str, int]]:
        """Return a DICOM SEG of the lesions, and the number of each one's segment; None where none has a voxel."""
        import highdicom as hd

        lesions = {lesion.id: lesion for lesion in self.analysis.lesions}
        drawn = [
            segment.name
            for segment in segmentation.segments
            if segment.name in lesions and segmentation.array(segment.name).any()
        ]
        if not drawn:
            return None, {}
        arrays = {name: segmentation.array(name) for name in drawn}
        slices = np.flatnonzero(np.any([array.any(axis=(1, 2)) for array in arrays.values()], axis=0))
        span = slice(int(slices[0]), int(slices[-1]) + 1)
        overlap = sum(int(array.sum()) for array in arrays.values()) > int(np.any(list(arrays.values()), axis=0).sum())
        if overlap:
            pixels = np.stack([array[span] for array in arrays.values()], axis=-1).astype(np.uint8)
        else:
            pixels = np.zeros(
                next(iter(arrays.values()))[span].shape, dtype=np.uint8 if len(drawn) < 256 else np.uint16
            )
            for number, array in enumerate(arrays.values(), start=1):
                pixels[array[span]] = number
        descriptions = [self._description(number, lesions[name], item) for number, name in enumerate(drawn, start=1)]
        data = hd.seg.Segmentation(
            source_images=list(images[span]),
            pixel_array=pixels,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=descriptions,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL,
            software_versions=self.analysis.provenance.version,
            device_serial_number="0",
            content_label="LESIONS",
            content_description=f"Lesions at {item.name}"[:64],
            series_description=f"Lesions, {item.name}"[:64],
            **self._general("seg", item),
        )
        self._dated(data)
        return data, {name: number for number, name in enumerate(drawn, start=1)}

    def _description(self, number: int, lesion: Lesion, item: TimepointRecord) -> Any:
        import highdicom as hd

        seen = lesion.at(item.name)
        name, uid = self._tracking(lesion.id)
        site = codes.organ_code(lesion.organ)
        by_hand = seen is not None and seen.source == "given"
        kinds = hd.seg.SegmentAlgorithmTypeValues
        return hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=lesion.id[:64],
            segmented_property_category=codes.code("49755003", "SCT", "Morphologically Abnormal Structure"),
            segmented_property_type=codes.finding_code(node=lesion.node),
            algorithm_type=kinds.MANUAL if by_hand else kinds.SEMIAUTOMATIC,
            algorithm_identification=None
            if by_hand
            else hd.AlgorithmIdentificationSequence(
                name="Propagation of baseline contours",
                family=codes.code("123111", "DCM", "Deformable Models"),
                version=self.analysis.provenance.version,
                source=MODEL,
            ),
            tracking_uid=uid,
            tracking_id=name[:64],
            anatomic_regions=None if site is None else [site],
        )

    def _report(self, item: TimepointRecord, images: Sequence[Dataset], seg: Any, numbers: Mapping[str, int]) -> Any:
        """Return the structured report of one time point."""
        import highdicom as hd

        groups: list[Any] = []
        context = self._context(item)
        for lesion in self.analysis.lesions:
            seen = lesion.at(item.name)
            if seen is not None:
                groups.append(self._lesion(lesion, seen, images, seg, numbers.get(lesion.id), context))
        visit = next((found for found in self.analysis.response.visits if found.timepoint == item.name), None)
        if visit is not None:
            groups.append(self._response(visit, context))
        observer = hd.sr.ObserverContext(
            observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"),
            observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                uid=codes.derived_uid("device", self.analysis.provenance.version),
                name=MODEL,
                manufacturer_name=MANUFACTURER,
                model_name=f"{MODEL} {self.analysis.provenance.version}",
            ),
        )
        content = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=observer),
            procedure_reported=codes.code("77477000", "SCT", "Computed tomography"),
            imaging_measurements=groups,
            title=codes.code("126001", "DCM", "Oncology Measurement Report"),
            referenced_images=None,
        )
        data = hd.sr.EnhancedSR(
            evidence=[*([seg] if seg is not None else []), *images],
            content=content[0],
            is_complete=True,
            manufacturer=MANUFACTURER,
            series_description=f"Measurements, {item.name}"[:64],
            **self._general("sr", item),
        )
        scheme = load_pydicom().Dataset()
        scheme.CodingSchemeDesignator = codes.PRIVATE_SCHEME
        scheme.CodingSchemeName = codes.PRIVATE_SCHEME_NAME
        scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
        data.CodingSchemeIdentificationSequence = [scheme]
        self._dated(data)
        return data

    def _context(self, item: TimepointRecord) -> Any:
        import highdicom as hd

        order = [record.name for record in self.analysis.timepoints].index(item.name) + 1
        baseline = item.name == self.analysis.baseline
        return hd.sr.TimePointContext(
            time_point=item.name,
            time_point_type=codes.code(*_BASELINE) if baseline else None,
            time_point_order=order,
            protocol_time_point_identifier=item.name,
        )

    def _lesion(
        self,
        lesion: Lesion,
        seen: LesionObservation,
        images: Sequence[Dataset],
        seg: Any,
        number: int | None,
        context: Any,
    ) -> Any:
        import highdicom as hd

        name, uid = self._tracking(lesion.id)
        measures = (
            (codes.code("103339001", "SCT", "Long axis"), seen.long_axis_mm, ("mm", "millimeter"), 1.0),
            (codes.code("103340004", "SCT", "Short axis"), seen.short_axis_mm, ("mm", "millimeter"), 1.0),
            (codes.code("118565006", "SCT", "Volume"), seen.volume_ml, ("mm3", "cubic millimeter"), 1000.0),
        )
        site = codes.organ_code(lesion.organ)
        shared = {
            "tracking_identifier": hd.sr.TrackingIdentifier(uid=uid, identifier=name),
            "time_point_context": context,
            "finding_type": codes.finding_code(node=lesion.node),
            "finding_category": codes.category_code(lesion.role),
            "finding_sites": None if site is None else [hd.sr.FindingSite(site)],
            "measurements": [
                hd.sr.Measurement(term, round(value * factor, 6), codes.code(unit[0], "UCUM", unit[1]))
                for term, value, unit, factor in measures
                if value is not None
            ]
            or None,
            "qualitative_evaluations": [
                hd.sr.QualitativeEvaluation(
                    codes.private("STATUS", "Status of a lesion"), codes.status_code(seen.status)
                )
            ],
        }
        if number is None or seg is None:
            return hd.sr.MeasurementsAndQualitativeEvaluations(**shared)
        reference = hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=number,
            source_series=hd.sr.SourceSeriesForSegmentation(images[0].SeriesInstanceUID),
        )
        return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=reference, **shared)

    def _response(self, visit: Visit, context: Any) -> Any:
        """Return the response at a visit as a group of its own."""
        import highdicom as hd

        response = codes.code("112048", "DCM", "Current Response")
        said = (
            (codes.code("112021", "DCM", "Response Evaluation Method"), codes.code("126081", "DCM", "RECIST 1.1")),
            (response, codes.target_response_code(visit.target)),
            (response, codes.non_target_response_code(visit.non_target)),
            (codes.private("RECIST11", "Overall response by RECIST 1.1"), codes.recist_code(visit.recist)),
            (codes.private("IRECIST", "Overall response by iRECIST"), codes.irecist_code(visit.irecist)),
        )
        measures = (
            [
                hd.sr.Measurement(
                    codes.private("SUM", "Sum of target diameters"),
                    round(visit.sum_mm, 6),
                    codes.code("mm", "UCUM", "millimeter"),
                )
            ]
            if visit.sum_mm is not None
            else None
        )
        return hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(
                uid=codes.derived_uid(self.seed, self.analysis.patient, "", "response"), identifier="Response"
            ),
            time_point_context=context,
            measurements=measures,
            qualitative_evaluations=[
                hd.sr.QualitativeEvaluation(name, value) for name, value in said if value is not None
            ],
        )

    def _dated(self, data: Any) -> None:
        """Give an object the time of the analysis, so that one result always gives the same object."""
        made = datetime.datetime.fromisoformat(self.analysis.provenance.created.replace("Z", "+00:00"))
        data.ContentDate = data.SeriesDate = data.InstanceCreationDate = made.strftime("%Y%m%d")
        data.ContentTime = data.SeriesTime = data.InstanceCreationTime = made.strftime("%H%M%S")

    def pdf(self, content: bytes) -> None:
        """Write the report as an encapsulated PDF of the latest time point."""
        item = self.analysis.timepoints[-1]
        data = new_file(_PDF_CLASS, self._uid("pdf", "instance"), self._subject(item))
        source = self.images[item.name][0]
        for name in (
            "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID",
            "AccessionNumber", "ReferringPhysicianName",
        ):  # fmt: skip
            setattr(data, name, source.get(name, ""))
        if "SpecificCharacterSet" in source:
            data.SpecificCharacterSet = source.SpecificCharacterSet
        data.Modality, data.SeriesNumber, data.InstanceNumber = "DOC", _SERIES["pdf"], 1
        data.SeriesInstanceUID = self._uid("pdf", "series")
        data.SeriesDescription = "Report of the analysis"
        data.ConversionType, data.BurnedInAnnotation = "WSD", "NO"
        data.AcquisitionDateTime = ""
        data.DocumentTitle = "Immunotherapy follow-up"
        data.ConceptNameCodeSequence = []
        data.MIMETypeOfEncapsulatedDocument = "application/pdf"
        data.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
        data.EncapsulatedDocumentLength = len(content)
        self._dated(data)
        self._save(data, self.folder / item.name / "report.dcm")
