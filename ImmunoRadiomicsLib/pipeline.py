"""The stages in their order, from a study to an output folder.

Each stage is a pure function of its inputs; this file only reads, hands on, keeps what is finished and writes. Costly stages
(anatomy, alignment, lesions, radiomics) are kept by the hash of their inputs, so that a killed run goes on where it was.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from . import alignment, classifiers, lesions, radiomics, report, response
from .alignment.local import LocalMap
from .analysis import (
    SCHEMA_VERSION,
    AlignmentQuality,
    AlignmentRecord,
    Analysis,
    ContextScore,
    FeatureDelta,
    Features,
    Flag,
    Lesion,
    LocalFit,
    LungChange,
    LungMeasures,
    Provenance,
    Response,
    StageName,
    StageRecord,
    StageResult,
    TimepointRecord,
)
from .errors import MissingDependencyError
from .files import write_text
from .finished import read_lists, read_regions, write_found
from .images import (
    RegionMask,
    Segmentation,
    read_segmentation,
    read_volume,
    segmentation_from_regions,
    write_segmentation,
    write_volume,
)
from .inputs import Inputs, read_inputs
from .lesions.find import misfit
from .lesions.lung_change import lung_change
from .lesions.names import is_organ
from .lesions.regions import NARROW_RING_MM, RINGS_MM
from .lesions.vessels import measure_vessels
from .order import Order, Settings, software_packages, software_version
from .progress import Progress, part, silent
from .readings import measurements_of
from .serialise import from_json, to_json
from .study import Study, Timepoint, study_warnings
from .workspace import (
    PROVENANCE_FILE,
    RESULT_FILE,
    STAGE_FILE,
    Workspace,
    code_fingerprint,
    fingerprint,
    write_json,
)

RESEARCH_USE_ONLY = "Research use only. Not a medical device; not for diagnosis or for decisions about treatment."

# What is added to a complete result before it appears: it gets the analysis, the study, the folder and a progress.
Finish = Callable[[Analysis, Study, Path, Progress], Sequence[str]]

# Shares of a full-size run's time, for the progress display only.
_WEIGHTS = {
    "read": 4,
    "anatomy": 10,
    "align": 25,
    "lesions": 12,
    "extract": 32,
    "respond": 1,
    "flag": 2,
    "report": 6,
    "finish": 8,
}


def analyze(
    source: Study | Path,
    out: Path,
    *,
    settings: Settings | None = None,
    progress: Progress = silent,
    finish: Finish | None = None,
    cache: Path | None = None,
) -> Analysis:
    """Analyse a patient and write the output folder, which appears only when it is complete.

    Parameters
    ----------
    source
        A study, or the path of its study.yaml.
    out
        The output folder; an earlier result there is replaced.
    settings
        Preset, engine, jobs and seed.
    finish
        Adds further files to the folder before it appears, and returns what it has to warn of.

    cache
        Where finished steps are kept beyond this run, so that a run with other settings takes over what they do not touch.
        Without it they are kept only until the result is complete. It holds parts of the images: clear it as you would them.

    Raises
    ------
    InputError
        If the study is wrong; nothing is written then.
    CancelledError
        If the progress asked to stop; finished stages are kept for the next run.
    """
    order = Order.of(source, out, settings, cache, "all" if finish is None else "all and more")
    if order.is_done:
        progress(1.0, "done before: nothing has changed since")
        return from_json(Analysis, json.loads((order.workspace.out / RESULT_FILE).read_text(encoding="utf-8")))
    run = _Run.of(order, progress)
    with run.workspace as workspace:
        result = run.whole(finish)
        workspace.publish()
    progress(1.0, "done")
    return result


def run_stage(
    source: Study | Path,
    out: Path,
    stage: StageName,
    *,
    settings: Settings | None = None,
    progress: Progress = silent,
    cache: Path | None = None,
) -> StageResult:
    """Run the pipeline up to one stage and write that stage's files; parameters and errors are those of ``analyze``."""
    order = Order.of(source, out, settings, cache, stage)
    if order.is_done:
        progress(1.0, "done before: nothing has changed since")
        return from_json(StageResult, json.loads((order.workspace.out / STAGE_FILE).read_text(encoding="utf-8")))
    run = _Run.of(order, progress)
    with run.workspace as workspace:
        result = run.until(stage)
        workspace.publish()
    progress(1.0, "done")
    return result


class _Run:
    """One run of the pipeline: what it has found so far, how long each stage took, and what it has to say."""

    def __init__(
        self,
        inputs: Inputs,
        settings: Settings,
        presets: tuple[radiomics.Preset, radiomics.Preset],
        workspace: Workspace,
        hashes: dict[str, str],
        sha256: str,
        progress: Progress,
    ):
        self.inputs, self.study, self.settings, self.sha256 = inputs, inputs.study, settings, sha256
        self.preset, self.lung_preset = presets
        self.workspace, self.progress = workspace, progress
        self.started = datetime.datetime.now(datetime.timezone.utc)
        self.records: list[StageRecord] = []
        self.log: list[str] = []
        self.warnings: list[str] = list(study_warnings(self.study))
        self.done_weight = float(_WEIGHTS["read"])
        self.hashes = hashes
        self.warnings += self._repeated_scans()
        self.alignments: tuple[AlignmentRecord, ...] = ()
        self.transforms: dict[str, sitk.Transform] = {}
        self.local_maps: dict[str, LocalMap] = {}
        self.lesions: tuple[Lesion, ...] = ()
        self.lungs: tuple[LungMeasures, ...] = ()
        self.lung_changes: tuple[LungChange, ...] = ()
        self.regions: tuple[RegionMask, ...] = ()
        self.features: tuple[Features, ...] = ()
        self.deltas: tuple[FeatureDelta, ...] = ()
        self.flags: tuple[Flag, ...] = ()
        self.context: tuple[ContextScore, ...] = ()

    @classmethod
    def of(cls, order: Order, progress: Progress) -> _Run:
        """Read the study and its images, and check them before anything is written."""
        progress(0.0, "read: study and images")
        inputs = read_inputs(order.source)
        return cls(inputs, order.settings, order.presets, order.workspace, order.hashes, order.sha256, progress)

    def until(self, stage: StageName) -> StageResult:
        """Run the stages up to one and write its files into the result folder."""
        self._align()
        if stage != "align":
            self._find()
        if stage in ("extract", "flag"):
            self._extract()
        found = self._respond() if stage in ("respond", "flag") else None
        if stage == "flag" and found is not None:
            self._flag(found)
        return self._write_stage(stage, found)

    def whole(self, finish: Finish | None) -> Analysis:
        """Run every stage and write everything into the result folder."""
        self._align()
        self._find()
        self._extract()
        found = self._respond()
        self._flag(found)
        return self._write_analysis(found, finish)

    def _repeated_scans(self) -> list[str]:
        """Say which time points hold one and the same CT: most often a slip in study.yaml, and nothing has changed between them."""
        first: dict[str, str] = {}
        warnings = []
        for timepoint in self.study.timepoints:
            earlier = first.setdefault(self.hashes[f"{timepoint.name}.ct"], timepoint.name)
            if earlier != timepoint.name:
                warnings.append(f"{timepoint.name} is the same CT as {earlier}: check the paths in study.yaml.")
        return warnings

    def _say(self, message: str) -> None:
        seconds = (datetime.datetime.now(datetime.timezone.utc) - self.started).total_seconds()
        self.log.append(f"{seconds:8.1f} s  {message}")

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
            self._say(f"warning: {message}")

    def _stage(self, name: str, key: str, work: Callable[[Progress], bool]) -> None:
        """Run one stage with its share of the progress; ``work`` returns whether everything was there already."""
        total = sum(_WEIGHTS.values())
        start = self.done_weight / total
        self.done_weight += _WEIGHTS[name]
        share = part(self.progress, start, self.done_weight / total)
        share(0.0, f"{name}: starting")
        cpu, wall = _cpu_seconds(), time.perf_counter()
        reused = work(lambda fraction, message: share(fraction, f"{name}: {message}"))
        record = StageRecord(name, round(_cpu_seconds() - cpu, 2), round(time.perf_counter() - wall, 2), reused, key)
        self.records.append(record)
        share(1.0, f"{name}: {'taken over' if reused else 'done'}")
        self._say(
            f"{name}: {record.cpu_seconds:.1f} s CPU, {record.wall_seconds:.1f} s{', taken over' if reused else ''}"
        )

    def _align(self) -> None:
        timepoints, baseline = self.study.timepoints, self.study.baseline
        self.anatomies: dict[str, sitk.Image] = {}
        # A lesion that has an organ's name would else be taken for the organ, and the lungs guide the alignment.
        organ_like = sorted((item.segment, item.ignore) for item in self.study.lesions if is_organ(item.segment))
        anatomy_keys = {item.name: self._key("anatomy", self._hashes_of(item), organ_like) for item in timepoints}

        def anatomy(progress: Progress) -> bool:
            all_reused = True
            for index, timepoint in enumerate(timepoints):
                share = part(progress, index / len(timepoints), (index + 1) / len(timepoints))
                folder, reused = self.workspace.step(
                    f"anatomy-{timepoint.name}",
                    anatomy_keys[timepoint.name],
                    partial(self._make_anatomy, timepoint, share),
                )
                self.anatomies[timepoint.name] = sitk.ReadImage(str(folder / "anatomy.nrrd"))
                for warning in json.loads((folder / "warnings.json").read_text()):
                    self._warn(f"{timepoint.name}: {warning}")
                all_reused &= reused
            return all_reused

        self._stage("anatomy", fingerprint(anatomy_keys), anatomy)
        followups = [timepoint for timepoint in timepoints if timepoint is not baseline]
        keys = {
            item.name: self._key(
                "align", self._hashes_of(baseline), self._hashes_of(item), organ_like, self.settings.engine
            )
            for item in followups
        }

        def align(progress: Progress) -> bool:
            all_reused, records = True, []
            for index, timepoint in enumerate(followups):
                share = part(progress, index / len(followups), (index + 1) / len(followups))
                folder, reused = self.workspace.step(
                    f"align-{timepoint.name}",
                    keys[timepoint.name],
                    partial(self._make_alignment, timepoint, share),
                )
                records.append(self._take_alignment(folder, timepoint))
                all_reused &= reused
            self.alignments = tuple(records)
            return all_reused

        self._stage("align", fingerprint(keys), align)

    def _make_anatomy(self, timepoint: Timepoint, progress: Progress, folder: Path) -> None:
        progress(0.0, f"body and lungs of {timepoint.name}")
        given = self.inputs.segmentations.get(timepoint.name)
        result = lesions.segment_anatomy(
            self.inputs.volumes[timepoint.name],
            given,
            lesion_segments={item.segment for item in self.study.lesions},
            progress=progress,
        )
        write_volume(result.image, folder / "anatomy.nrrd")
        write_json(folder / "warnings.json", list(result.warnings))

    def _make_alignment(self, timepoint: Timepoint, progress: Progress, folder: Path) -> None:
        progress(0.0, f"{timepoint.name} onto {self.study.baseline.name}")
        result = alignment.align(
            self.inputs.volumes[self.study.baseline.name],
            self.inputs.volumes[timepoint.name],
            fixed_mask=self.anatomies[self.study.baseline.name],
            moving_mask=self.anatomies[timepoint.name],
            engine="user" if timepoint.transform is not None else self.settings.engine,
            initial=self.inputs.transforms.get(timepoint.name),
            progress=progress,
        )
        alignment.write_transforms(result, folder, timepoint.name)
        LocalMap.of(result).write(folder)
        write_json(folder / "alignment.json", {"engine": result.engine, "quality": to_json(result.quality)})

    def _take_alignment(self, folder: Path, timepoint: Timepoint) -> AlignmentRecord:
        """Copy the transforms into the result; a failed alignment is recorded but not used."""
        content = json.loads((folder / "alignment.json").read_text())
        quality = from_json(AlignmentQuality, content["quality"])
        target = self.workspace.result / "transforms"
        target.mkdir(exist_ok=True)
        names = (f"{timepoint.name}.h5", f"{timepoint.name}_inverse.h5")
        for name in names:
            shutil.copyfile(folder / name, target / name)
        reasons = "; ".join(quality.reasons)
        if quality.verdict == "failed":
            self._warn(
                f"{timepoint.name} could not be aligned with the baseline and is left out of what compares the two: {reasons}"
            )
        else:
            self.transforms[timepoint.name] = alignment.read_transform(folder / names[0])
            self.local_maps[timepoint.name] = LocalMap.read(folder)
            if quality.verdict == "usable":
                self._warn(f"{timepoint.name}: the alignment is usable but not good: {reasons}")
        return AlignmentRecord(
            timepoint.name,
            self.study.baseline.name,
            content["engine"],
            quality,
            f"transforms/{names[0]}",
            f"transforms/{names[1]}",
        )

    def _find(self) -> None:
        key = self._key(
            "lesions",
            self.hashes,
            self.settings.engine,
            to_json(self.study.lesions),
            to_json(self.study.links),
            [(item.name, item.date, item.no_visible_lesions) for item in self.study.timepoints],
            self.settings.narrow_ring,
        )

        def find(progress: Progress) -> bool:
            folder, reused = self.workspace.step("lesions", key, lambda folder: self._make_lesions(folder, progress))
            lists = read_lists(folder)
            self.lesions, self.lungs, self.lung_changes = lists["lesions"], lists["lungs"], lists["lung_changes"]
            self.regions = read_regions(folder)
            shutil.copytree(folder / "segmentations", self.workspace.result / "segmentations")
            for warning in lists["warnings"]:
                self._warn(warning)
            return reused

        self._stage("lesions", key, find)

    def _make_lesions(self, folder: Path, progress: Progress) -> None:
        found = lesions.find(
            self.study,
            self.inputs.volumes,
            {item.name: self._usable_segmentation(item) for item in self.study.timepoints},
            self.anatomies,
            self.transforms,
            local_alignment=lambda name, place, radius_mm: self.local_maps[name].at(place, radius_mm),
            edits=self.study.links,
            rings=(*RINGS_MM, *([NARROW_RING_MM] if self.settings.narrow_ring else [])),
            progress=part(progress, 0.0, 0.7),
        )
        changes: list[LungChange] = []
        followups = [item for item in self.study.timepoints if self.study.day(item) > 0]
        for index, timepoint in enumerate(followups):
            progress(0.7 + 0.1 * index / len(followups), f"what is new in the lungs at {timepoint.name}")
            changes.extend(self._lung_change(found, timepoint, folder))
        write_found(
            folder,
            regions=found.regions,
            lesions=found.lesions,
            lungs=found.lungs,
            lung_changes=changes,
            warnings=found.warnings,
        )
        progress(0.8, "writing segmentations")
        for name, volume in self.inputs.volumes.items():
            write_segmentation(found.segmentations[name], folder / "segmentations" / f"{name}.seg.nrrd")
            named = [
                (f"{item.lesion or 'lungs'}.{item.region}", item)
                for item in found.regions
                if item.timepoint == name and item.count
            ]
            write_segmentation(
                segmentation_from_regions(named, volume), folder / "segmentations" / f"{name}.regions.seg.nrrd"
            )

    def _usable_segmentation(self, timepoint: Timepoint) -> Segmentation | None:
        """Contours of a scan that could not be aligned cannot be told apart, so its lesions are not evaluated."""
        aligned = timepoint is self.study.baseline or timepoint.name in self.transforms
        return self.inputs.segmentations.get(timepoint.name) if aligned else None

    def _lung_change(self, found: lesions.Found, timepoint: Timepoint, folder: Path) -> tuple[LungChange, ...]:
        """Return what is new in the lungs, and write its map."""
        record = next(item for item in self.alignments if item.timepoint == timepoint.name)
        baseline, inverse = self.study.baseline.name, record.inverse_transform_file
        compared = lung_change(
            self.inputs.volumes[baseline],
            self.anatomies[baseline],
            self.inputs.volumes[timepoint.name],
            self.anatomies[timepoint.name],
            self.transforms.get(timepoint.name),
            record.quality.verdict,
            timepoint=timepoint.name,
            reference=baseline,
            baseline_exclude=self._tumours(found, baseline),
            followup_exclude=self._tumours(found, timepoint.name),
            inverse=alignment.read_transform(self.workspace.result / inverse) if inverse else None,
        )
        if compared.opacities is None:
            return compared.changes
        name = f"segmentations/{timepoint.name}.opacities.seg.nrrd"
        write_segmentation(compared.opacities, folder / name)
        return tuple(replace(item, map_file=name) if item.part == "both" else item for item in compared.changes)

    def _tumours(self, found: lesions.Found, timepoint: str) -> np.ndarray:
        """Every lesion of a time point with its inner ring, which is 5 mm wide."""
        mask = np.zeros(self.inputs.volumes[timepoint].GetSize()[::-1], dtype=bool)
        for item in found.regions:
            if item.timepoint == timepoint and item.region in ("core", "ring-0-5mm"):
                box = tuple(slice(at, at + size) for at, size in zip(item.offset_zyx, item.voxels.shape, strict=True))
                mask[box] |= item.voxels
        return mask

    def _extract(self) -> None:
        chosen = (
            {name: item.sha256 for name, item in self._presets().items()},
            self.settings.engine,
            radiomics.software_versions(self.settings.radiomics_engine),
            self.settings.vessels,
        )
        key = self._key("extract", self.hashes, *chosen)

        def extract(progress: Progress) -> bool:
            beside = self._images_beside()
            self.features = radiomics.extract(
                self.inputs.volumes,
                self.regions,
                self.preset,
                lung_preset=self.lung_preset,
                jobs=self.settings.jobs,
                cache=self.workspace.cache / "radiomics",
                progress=part(progress, 0.0, 0.7) if self.settings.vessels or beside else progress,
                engine=self.settings.radiomics_engine,
            )
            if beside:
                self.features = radiomics.extract_beside(
                    self.features,
                    self.regions,
                    self.inputs.volumes,
                    beside,
                    jobs=self.settings.jobs,
                    cache=self.workspace.cache / "radiomics",
                    progress=part(progress, 0.7, 0.8),
                    engine=self.settings.radiomics_engine,
                )
            if self.settings.vessels:
                in_lung = {item.id for item in self.lesions if item.organ == "lung"}
                around = part(progress, 0.8, 1.0)
                self.features += measure_vessels(self.inputs.volumes, self.regions, in_lung, progress=around)
            days = {item.name: self.study.day(item) for item in self.study.timepoints}
            deltas = radiomics.feature_deltas(self.features, days, self.study.baseline.name)
            self.deltas = tuple(self._withheld(item) for item in deltas)
            return False

        self._stage("extract", key, extract)

    def _presets(self) -> dict[str, radiomics.Preset]:
        """Return what is extracted, by what from."""
        chosen = {"lesions": self.preset, "lungs": self.lung_preset}
        if any(item.pet is not None or item.mr is not None for item in self.study.timepoints):
            chosen.update({str(kind): preset for kind, preset in radiomics.presets_beside().items()})
        return chosen

    def _images_beside(self) -> dict[str, radiomics.Beside]:
        """Read the PET and the MR of each time point that has one."""
        return {
            item.name: radiomics.Beside(
                *(None if path is None else read_volume(path, ct=False) for path in (item.pet, item.mr))
            )
            for item in self.study.timepoints
            if item.pet is not None or item.mr is not None
        }

    def _withheld(self, delta: FeatureDelta) -> FeatureDelta:
        """Empty a change that rests on a failed alignment; flag that of a lesion where the scans may not lie well on each other."""
        timepoints = {delta.earlier, delta.later} - {self.study.baseline.name}
        if timepoints <= set(self.transforms):
            return replace(delta, caution=_caution(delta, self.lesions, self.study.baseline.name))
        reason = f"{', '.join(sorted(timepoints - set(self.transforms)))} could not be aligned with the baseline"
        return replace(delta, reason=reason, values={}, log_ratios={})

    def _respond(self) -> Response:
        start = self.study.treatment.start
        results: list[Response] = []

        def respond(progress: Progress) -> bool:
            results.append(
                response.respond(
                    measurements_of(self.study, self.lesions),
                    settings=self.settings.protocol,
                    timepoint_names={self.study.day(item): item.name for item in self.study.timepoints},
                    treatment_start_day=(start - self.study.baseline.date).days if start else None,
                    volumes_ml={
                        (lesion.id, self._days[seen.timepoint]): seen.volume_ml
                        for lesion in self.lesions
                        for seen in lesion.observations
                        if seen.volume_ml is not None
                    },
                    ecog={0: ecog} if (ecog := self.study.clinical.ecog) is not None else None,
                    symptoms_worse=self._symptoms(),
                    baseline_date=self.study.baseline.date,
                    visit_days=tuple(self._days.values()),
                    unsearched_days=[
                        self.study.day(item) for item in self.study.timepoints if not self._searched(item)
                    ],
                )
            )
            return False

        self._stage("respond", self._key("respond", to_json(self.lesions)), respond)
        return results[0]

    def _searched(self, timepoint: Timepoint) -> bool:
        """Whether a reader looked for lesions at a time point, and those found can be compared with the baseline's."""
        if timepoint.no_visible_lesions:
            return True
        if timepoint is not self.study.baseline and timepoint.name not in self.transforms:
            return False
        # A segmentation without any lesion is one of organs.
        seen = (lesion.at(timepoint.name) for lesion in self.lesions)
        return timepoint.segmentation is not None and any(item and item.status != "not evaluated" for item in seen)

    def _symptoms(self) -> dict[int, bool] | None:
        """Symptoms are known once, for the last scan."""
        worse = self.study.clinical.symptoms_worse
        return None if worse is None else {self.study.day(self.study.timepoints[-1]): worse}

    @property
    def _days(self) -> dict[str, int]:
        return {item.name: self.study.day(item) for item in self.study.timepoints}

    def _flag(self, found: Response) -> None:
        def flag(progress: Progress) -> bool:
            self.flags, self.context = classifiers.assess(
                self.study,
                timepoints=self._timepoint_records(),
                lesions=self.lesions,
                lungs=self.lungs,
                lung_changes=self.lung_changes,
                response=found,
                alignments=self.alignments,
                features=self.features,
                deltas=self.deltas,
                seed=self.settings.seed,
                bundles=[Path(item) for item in self.settings.bundles],
            )
            return False

        chosen = self.settings.seed, self.settings.bundles_sha256
        self._stage("flag", self._key("flag", to_json(self.study.clinical), *chosen), flag)

    def _timepoint_records(self) -> tuple[TimepointRecord, ...]:
        records = []
        for item in self.study.timepoints:
            volume = self.inputs.volumes[item.name]
            seen = {
                found.source
                for lesion in self.lesions
                if (found := lesion.at(item.name)) is not None and found.status != "not evaluated"
            }
            drawn = item.segmentation is not None or item.no_visible_lesions
            records.append(
                TimepointRecord(
                    name=item.name,
                    day=self.study.day(item),
                    date=item.date.isoformat(),
                    spacing_mm=volume.GetSpacing(),
                    size=volume.GetSize(),
                    segmentation="given" if drawn else "propagated" if "propagated" in seen else "none",
                    pet=item.pet is not None,
                    acquisition=item.acquisition,
                )
            )
        return tuple(records)

    def _provenance(self) -> Provenance:
        return Provenance(
            software="ImmunoRadiomics",
            version=software_version(),
            created=self.started.isoformat(timespec="seconds"),
            python=sys.version.split()[0],
            platform=platform.platform(),
            packages=software_packages(self.settings),
            inputs_sha256=self.hashes,
            stages=tuple(self.records),
            seed=self.settings.seed,
            settings=self.settings.record,
            presets={name: json.dumps(item.parameters()) for name, item in self._presets().items()},
            code_sha256=code_fingerprint(),
            run_sha256=self.sha256,
        )

    def _write_stage(self, until: StageName, found: Response | None) -> StageResult:
        result = StageResult(
            schema_version=SCHEMA_VERSION,
            research_use_only=RESEARCH_USE_ONLY,
            patient=self.study.patient,
            stage=until,
            timepoints=self._timepoint_records(),
            alignments=self.alignments,
            lesions=self.lesions,
            lungs=self.lungs,
            lung_changes=self.lung_changes,
            features=self.features,
            deltas=self.deltas,
            response=found,
            flags=self.flags,
            context=self.context,
            warnings=tuple(self.warnings),
        )
        folder = self.workspace.result
        write_json(folder / STAGE_FILE, to_json(result))
        report.write_stage_tables(result, folder)
        self._write_record(folder)
        return result

    def _write_record(self, folder: Path) -> None:
        write_text(
            folder / "log.txt", "\n".join([f"ImmunoRadiomics {software_version()}. {RESEARCH_USE_ONLY}", *self.log, ""])
        )
        record = replace(self._provenance(), files_sha256=self.workspace.files_sha256(folder))
        write_json(folder / PROVENANCE_FILE, to_json(record))

    def _write_analysis(self, found: Response, finish: Finish | None) -> Analysis:
        folder = self.workspace.result
        start = self.study.treatment.start
        result = Analysis(
            schema_version=SCHEMA_VERSION,
            research_use_only=RESEARCH_USE_ONLY,
            patient=self.study.patient,
            tumour=self.study.tumour,
            baseline=self.study.baseline.name,
            treatment_start_day=(start - self.study.baseline.date).days if start else None,
            timepoints=self._timepoint_records(),
            alignments=self.alignments,
            lesions=self.lesions,
            lungs=self.lungs,
            lung_changes=self.lung_changes,
            preset=self.preset.name,
            features=self.features,
            deltas=self.deltas,
            response=found,
            flags=self.flags,
            context=self.context,
            warnings=tuple(self.warnings),
            provenance=self._provenance(),
        )
        segmentations = {
            name: read_segmentation(folder / "segmentations" / f"{name}.seg.nrrd", volume, may_be_empty=True)
            for name, volume in self.inputs.volumes.items()
        }
        opacities = {
            item.timepoint: read_segmentation(
                folder / item.map_file, self.inputs.volumes[item.timepoint], may_be_empty=True
            )
            for item in self.lung_changes
            if item.map_file is not None
        }

        def write_report(progress: Progress) -> bool:
            progress(0.0, "tables")
            report.write_tables(result, folder)
            progress(0.2, "key images")
            pictures = report.key_images(
                result, self.inputs.volumes, segmentations, self.transforms, opacities=opacities
            )
            progress(0.8, "page")
            report.write_report(result, pictures, folder / "report.html")
            progress(0.9, "pages for printing")
            try:
                report.write_pdf(result, pictures, folder / "report.pdf", page=self.settings.paper)
            except MissingDependencyError as error:
                self._warn(f"report.pdf was not written: {error}")
            return False

        self._stage("report", self._key("report"), write_report)
        if finish is not None:
            self._stage("finish", self._key("finish"), lambda progress: self._finish(finish, result, folder, progress))
        result = replace(result, provenance=self._provenance(), warnings=tuple(self.warnings))
        write_json(folder / RESULT_FILE, to_json(result))
        self._write_record(folder)
        return result

    def _finish(self, finish: Finish, result: Analysis, folder: Path, progress: Progress) -> bool:
        for warning in finish(result, self.study, folder, progress):
            self._warn(warning)
        return False

    def _key(self, stage: str, *parts: object) -> str:
        return fingerprint(stage, code_fingerprint(), *parts)

    def _hashes_of(self, timepoint: Timepoint) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self.hashes.items() if key.startswith(f"{timepoint.name}.")]


def _caution(delta: FeatureDelta, lesions_found: Sequence[Lesion], baseline: str) -> str | None:
    """Say where the scans do not lie well on the baseline at the lesion of a change, or where that could not be judged."""
    lesion = next((item for item in lesions_found if item.id == delta.lesion), None)
    seen = [] if lesion is None else [lesion.at(delta.earlier), lesion.at(delta.later)]
    doubts = [
        f"{item.timepoint}: {doubt}"
        for item in seen
        if item is not None
        and item.timepoint != baseline
        and item.status in ("measured", "too small")
        and (doubt := misfit(LocalFit(item.local_alignment, item.local_shift_mm))) is not None
    ]
    return "; ".join(doubts) or None


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
