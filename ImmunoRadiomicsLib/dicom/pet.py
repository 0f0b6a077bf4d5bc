"""PET to standardised uptake values by body weight (SUVbw).

The rules are those of the QIBA vendor-neutral pseudo-code for SUVbw (Quantitative Imaging Biomarkers Alliance, FDG-PET/CT profile;
Kinahan and Fletcher, doi:10.1053/j.sult.2010.10.001): SUVbw = activity concentration x weight / dose, the dose decayed to the time to
which the images were decay corrected.
"""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING

from ..errors import InputError
from ..progress import Progress, silent
from .geometry import Stack
from .headers import Picture, number, read_dataset, text
from .pixels import Volume, read_scaled

if TYPE_CHECKING:
    from pydicom import Dataset

# Half-lives in seconds, by the code of the radionuclide (SNOMED RT, SNOMED CT) or its name.
_HALF_LIVES = {
    "C-111A1": 6586.2, "77004003": 6586.2, "18F": 6586.2, "F-18": 6586.2, "FLUORINE": 6586.2,
    "C-131A3": 4062.6, "80751004": 4062.6, "68GA": 4062.6, "GA-68": 4062.6, "GALLIUM": 4062.6,
    "C-168A4": 282240.0, "89ZR": 282240.0, "ZR-89": 282240.0, "ZIRCONIUM": 282240.0,
    "C-127A2": 45721.1, "64CU": 45721.1, "CU-64": 45721.1, "COPPER": 45721.1,
}  # fmt: skip
# A diagnostic dose is 10 to 1000 MBq; a value outside is in another unit than Bq.
_DOSE_LIMITS_BQ = (1e6, 5e9)
_WEIGHT_LIMITS_KG = (2.0, 400.0)
_LONGEST_UPTAKE_S = 6 * 3600.0
_PHILIPS_SUV_FACTOR = (0x7053, 0x00)
_PHILIPS_ACTIVITY_FACTOR = (0x7053, 0x09)
_GE_SCAN_DATETIME = (0x0009, 0x0D)


def read_suv(stack: Stack, progress: Progress = silent) -> Volume:
    """Read a stack of PET slices as SUVbw (g/ml), float32.

    Raises
    ------
    InputError
        If what the conversion needs is missing or does not make sense, or a slice cannot be read.
    """
    try:
        headers = [
            read_dataset(picture.path, pixels=False) for picture in stack.pictures[:: max(len(stack.pictures) - 1, 1)]
        ]
    except ValueError as error:
        raise InputError(str(error)) from error
    earliest = min(stack.pictures, key=lambda item: item.time or "9")
    first = read_dataset(earliest.path, pixels=False)
    factor, how = suv_factor(first)
    for other in headers:
        if not math.isclose(suv_factor(other)[0], factor, rel_tol=0.02):
            raise InputError(
                "the slices ask for different SUV factors: the series mixes units, doses or decay corrections"
            )

    def scale(picture: Picture) -> tuple[float, float]:
        if picture.slope is None:
            raise InputError("no rescale slope is given")
        return picture.slope * factor, (picture.intercept or 0.0) * factor

    volume = read_scaled(stack, scale, progress)
    return Volume(volume.image, (*volume.notes, how))


def suv_factor(data: Dataset) -> tuple[float, str]:
    """Return what rescaled values are multiplied by to become SUVbw, and how that was found.

    Raises
    ------
    InputError
        With the reason where it cannot be known.
    """
    corrections = text(data, "CorrectedImage").upper().split("\\")
    lacking = [name for code, name in (("ATTN", "attenuation"), ("DECY", "decay")) if code not in corrections]
    units = text(data, "Units").upper()
    if units == "GML":
        kind = text(data, "SUVType").upper() or "BW"
        if kind != "BW":
            raise InputError(f"the values are SUV by {kind}, not by body weight")
        return 1.0, "the values were SUVbw already"
    if lacking:
        raise InputError(f"the PET is not corrected for {' and '.join(lacking)}")
    if units == "CNTS":
        stored = _private(data, _PHILIPS_SUV_FACTOR, "Philips PET Private Group")
        if stored:
            return stored, "SUVbw by the factor that Philips scanners store"
        activity = _private(data, _PHILIPS_ACTIVITY_FACTOR, "Philips PET Private Group")
        if not activity:
            raise InputError("the values are counts and the factors of Philips scanners to SUV or to Bq/ml are missing")
        factor, how = _by_dose(data)
        return activity * factor, f"{how}; counts to Bq/ml by the factor that Philips scanners store"
    if units != "BQML":
        raise InputError(f"the values are in {units or 'an unknown unit'}; Bq/ml, Philips counts or SUVbw are needed")
    return _by_dose(data)


def _by_dose(data: Dataset) -> tuple[float, str]:
    """Return weight over decayed dose, in g/Bq."""
    weight = number(data, "PatientWeight")
    if weight is None or not _WEIGHT_LIMITS_KG[0] <= weight <= _WEIGHT_LIMITS_KG[1]:
        raise InputError(f"the patient's weight is {'not given' if not weight else f'{weight:g} kg'}")
    sequence = data.get("RadiopharmaceuticalInformationSequence") or []
    if len(sequence) != 1:
        raise InputError(
            "the radiopharmaceutical is not described" if not sequence else "several radiopharmaceuticals were injected"
        )
    drug = sequence[0]
    dose = number(drug, "RadionuclideTotalDose")
    if dose is None or not _DOSE_LIMITS_BQ[0] <= dose <= _DOSE_LIMITS_BQ[1]:
        raise InputError(f"the injected dose is {'not given' if not dose else f'{dose:g}, which cannot be in Bq'}")
    correction = text(data, "DecayCorrection").upper()
    if correction == "ADMIN":
        return weight * 1000 / dose, "SUVbw; decay corrected to the injection by the scanner"
    if correction != "START":
        raise InputError(f"the decay correction is {correction or 'not stated'}; START or ADMIN is needed")
    half_life = number(drug, "RadionuclideHalfLife") or _half_life(drug)
    if half_life is None or half_life <= 0:
        raise InputError("the half-life of the radionuclide is not given")
    started = scan_start(data, half_life)
    waited = (started - _injection(data, drug, started)).total_seconds()
    if not 0 <= waited <= _LONGEST_UPTAKE_S:
        raise InputError(f"the scan starts {waited / 60:.0f} min after the injection, which cannot be")
    decayed = dose * 2.0 ** (-waited / half_life)
    return weight * 1000 / decayed, f"SUVbw; dose decayed over {waited / 60:.1f} min to the start of the scan"


def scan_start(data: Dataset, half_life_s: float) -> datetime.datetime:
    """Return the time to which a series with decay correction START was corrected.

    That is the series time, unless the series was made later than its images were acquired: then GE states the time itself, and
    for others it follows from the first image and its frame reference time.
    """
    series = _moment(text(data, "SeriesDate") or text(data, "StudyDate"), text(data, "SeriesTime"))
    acquired = _moment(text(data, "AcquisitionDate") or text(data, "SeriesDate"), text(data, "AcquisitionTime"))
    if series is not None and (acquired is None or series <= acquired):
        return series
    stated = _private_text(data, _GE_SCAN_DATETIME, "GEMS_PETD_01")
    if stated:
        ge = _moment(stated[:8], stated[8:])
        if ge is not None:
            return ge
    if acquired is None:
        raise InputError("neither series time nor acquisition time is given")
    reference, duration = number(data, "FrameReferenceTime"), number(data, "ActualFrameDuration")
    if reference is None or not duration:
        return acquired
    decay = math.log(2) / half_life_s
    length = decay * duration / 1000
    average = math.log(length / (1 - math.exp(-length))) / decay
    return acquired - datetime.timedelta(seconds=reference / 1000 - average)


def _injection(data: Dataset, drug: Dataset, started: datetime.datetime) -> datetime.datetime:
    stated = text(drug, "RadiopharmaceuticalStartDateTime")
    if stated:
        found = _moment(stated[:8], stated[8:])
        if found is not None:
            return found
    clock = text(drug, "RadiopharmaceuticalStartTime")
    found = _moment(started.strftime("%Y%m%d"), clock)
    if not clock or found is None:
        raise InputError("the time of the injection is not given")
    # Only the time of day is given: an injection before midnight and a scan after it lie on two days.
    return found - datetime.timedelta(days=1) if found > started else found


def _moment(date: str, clock: str) -> datetime.datetime | None:
    """Return a DICOM date and time (HHMMSS.ffffff, maybe with a zone, which all times of a series share)."""
    digits = clock.split("+", maxsplit=1)[0].split("-", maxsplit=1)[0].replace(":", "").strip()
    whole, _, fraction = digits.partition(".")
    try:
        moment = datetime.datetime.strptime(date[:8] + whole.ljust(6, "0")[:6], "%Y%m%d%H%M%S")
    except ValueError:
        return None
    if not whole:
        return None
    return moment + datetime.timedelta(seconds=float(f"0.{fraction}") if fraction.isdigit() else 0.0)


def _half_life(drug: Dataset) -> float | None:
    for item in drug.get("RadionuclideCodeSequence") or []:
        for word in (text(item, "CodeValue"), *text(item, "CodeMeaning").replace("^", "").upper().split()):
            if word in _HALF_LIVES:
                return _HALF_LIVES[word]
    return None


def _private_text(data: Dataset, tag: tuple[int, int], creator: str) -> str:
    group, element = tag
    try:
        return str(data.private_block(group, creator)[element].value).strip()
    except KeyError:
        return ""


def _private(data: Dataset, tag: tuple[int, int], creator: str) -> float | None:
    try:
        value = float(_private_text(data, tag, creator))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
