"""The terminal: ``immunoradiomics COMMAND`` and ``python -m ImmunoRadiomicsLib COMMAND``.

Exit codes: 0 done; 1 the analysis ran but a stage could not be assessed as asked; 2 the input is wrong; 3 interrupted. Messages go
to stderr, results to files or stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from .analysis import Analysis, StageName, StageResult
from .display import MODES, display
from .errors import CancelledError, ImmunoRadiomicsError, InputError, MissingDependencyError
from .progress import Progress
from .study import Study

if TYPE_CHECKING:
    from . import training
    from .classifiers.bundles import Bundle, Performance
    from .order import Settings

DEMO_SEED = 7
_STAGE_HELP = {
    "align": "align every time point with the baseline",
    "lesions": "find, follow and measure the lesions",
    "extract": "extract the radiomics and their change",
    "flag": "answer the three questions",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(options.run(options))
    except InputError as error:
        for problem in error.problems:
            _say(f"error: {problem}")
        if len(error.problems) > 1:
            _say(f"{len(error.problems)} problems; nothing was written.")
        return error.exit_code
    except (KeyboardInterrupt, CancelledError):
        how = "" if getattr(options, "resume", True) else " with --resume"
        _say(f"Interrupted. What was finished is kept; the same command{how} goes on from there.")
        return CancelledError.exit_code
    except ImmunoRadiomicsError as error:
        _say(f"error: {error}")
        return error.exit_code
    except MemoryError:
        _say("error: the memory is not enough. Close other programs, or run with --jobs 1.")
        return 1
    except OSError as error:
        if error.strerror is None:
            raise
        _say(f"error: {error.filename or 'a file'}: {error.strerror}. What was finished is kept.")
        return 1


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    from . import SOURCE_VERSION

    parser = argparse.ArgumentParser(
        prog="immunoradiomics",
        description="Follow lesions and lungs on CT under immunotherapy, apply the response criteria, and weigh pseudoprogression, "
        "hyperprogression and pneumonitis with honest uncertainty. Research use only.",
    )
    parser.add_argument("--version", action="version", version=f"immunoradiomics {SOURCE_VERSION}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="a simulated patient, start to finish")
    demo.add_argument(
        "--out", type=Path, default=Path("demo-output"), metavar="DIR", help="output folder (default: %(default)s)"
    )
    demo.add_argument("--size", choices=("full", "small"), default="full", help="512x512x300, or a quick small patient")
    demo.add_argument(
        "--patient-seed", type=_not_negative, default=DEMO_SEED, metavar="N", help="another virtual patient"
    )
    _add_run_options(demo)
    demo.set_defaults(run=_demo)

    analyze = commands.add_parser("analyze", help="a patient from study.yaml to the three flags and the report")
    analyze.add_argument("study", type=Path, metavar="STUDY.yaml")
    analyze.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    _add_run_options(analyze)
    analyze.set_defaults(run=_analyze)

    for stage, text in _STAGE_HELP.items():
        command = commands.add_parser(stage, help=f"{text}: the pipeline up to this stage")
        command.add_argument("study", type=Path, metavar="STUDY.yaml")
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
        _add_run_options(command, scene=False)
        command.set_defaults(run=_stage, stage=stage)

    _add_dicom(commands)
    _add_respond(commands)
    _add_cohort(commands)
    _add_training(commands)

    simulate = commands.add_parser("simulate", help="a cohort of virtual patients with known truth")
    simulate.add_argument("--patients", type=int, required=True, metavar="N")
    simulate.add_argument("--seed", type=_not_negative, default=0, metavar="S")
    simulate.add_argument("--out", type=Path, required=True, metavar="DIR")
    simulate.add_argument(
        "--size",
        choices=("tiny", "small", "full"),
        default="small",
        help="full is 512x512x300; tiny is for large cohorts (default: small)",
    )
    simulate.add_argument("--progress", choices=MODES, default="auto")
    simulate.set_defaults(run=_simulate)

    for name, text, run in (
        ("models", "the classifier bundles and their cards", _models),
        ("presets", "the extraction presets and their rationale", _presets),
    ):
        listing = commands.add_parser(name, help=text)
        listing.add_argument("--json", action="store_true", help="for programs")
        listing.set_defaults(run=run)
    return parser


def _add_dicom(commands: Any) -> None:
    take = commands.add_parser(
        "import",
        help="a folder of DICOM files to study folders",
        description="Find patients, dates and series in any tree of DICOM files, choose the CT of each date, read PET as SUV and earlier "
        "contours as lesions, and write a study folder for each patient and series.csv: what was used, what was left out, and why.",
    )
    take.add_argument("folder", type=Path, metavar="DICOM_DIR")
    take.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    take.add_argument("--clinical", type=Path, metavar="CSV", help="treatment and clinical data, one row per patient")
    take.add_argument("--patient", metavar="ID", help="only this patient (DICOM patient id or pseudonym)")
    take.add_argument(
        "--series", action="append", default=[], metavar="UID", help="use this CT series for its date; may be repeated"
    )
    take.add_argument(
        "--pseudonymise", type=Path, metavar="KEYFILE", help="keep pseudonyms in this file and replace UIDs"
    )
    take.add_argument("--progress", choices=MODES, default="auto")
    take.set_defaults(run=_import)

    give = commands.add_parser(
        "export",
        help="a result as DICOM: SEG, structured report (TID 1500), PDF",
        description="Write the lesions of a result as DICOM segmentations and structured reports that refer to the DICOM files which the "
        "study was imported from, or, where these are not given, to derived CT instances that are written beside them.",
    )
    give.add_argument("result", type=Path, metavar="RESULT_DIR", help="output folder of analyze")
    give.add_argument("--study", type=Path, required=True, metavar="STUDY.yaml", help="what was analysed")
    give.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    give.add_argument("--dicom", type=Path, metavar="DICOM_DIR", help="the folder that the study was imported from")
    give.add_argument("--key", type=Path, metavar="KEYFILE", help="the key file of a pseudonymised import")
    give.add_argument("--fhir", type=Path, metavar="FILE.json", help="write a bundle of FHIR R4B resources too")
    give.add_argument("--progress", choices=MODES, default="auto")
    give.set_defaults(run=_export)


def _import(options: argparse.Namespace) -> int:
    from .dicom import import_folder

    result = import_folder(
        options.folder,
        options.out,
        clinical=options.clinical,
        patient=options.patient,
        key_file=options.pseudonymise,
        series=options.series,
        progress=display(options.progress),
    )
    for warning in result.warnings:
        _say(f"warning: {warning}")
    for patient in result.patients:
        _say(f"{patient.name}: {patient.timepoints} time points, {patient.study}")
    _say(f"What was used and what was left out: {result.folder / 'series.csv'}")
    return (
        0
        if all(item.patient in {patient.name for patient in result.patients} for item in result.rows if item.patient)
        else 1
    )


def _export(options: argparse.Namespace) -> int:
    from .report.dicom import export_dicom
    from .report.fhir import write_fhir
    from .serialise import from_json
    from .study import load_study

    path = options.result / "analysis.json"
    try:
        analysis = from_json(Analysis, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: this is no result. Give the output folder of analyze.") from error
    study = load_study(options.study)
    if [item.name for item in study.timepoints] != [item.name for item in analysis.timepoints]:
        raise InputError(
            f"{options.study}: its time points are not those of the result. Give the study that was analysed."
        )
    pdf = options.result / "report.pdf"
    result = export_dicom(
        analysis,
        study,
        options.result,
        options.out,
        dicom=options.dicom,
        key_file=options.key,
        pdf=pdf if pdf.exists() else None,
        progress=display(options.progress),
    )
    for note in result.notes:
        _say(note)
    _say(f"Written: {len(result.files)} DICOM files in {result.folder}. Research use only.")
    if options.fhir is not None:
        write_fhir(analysis, options.fhir)
        _say(f"Written: {options.fhir}. Research use only.")
    return 0


def _add_respond(commands: Any) -> None:
    from .response import table

    respond = commands.add_parser(
        "respond",
        help="response criteria: of a table of measurements, or the pipeline up to this stage",
        description="Apply the response criteria to a table of measurements or of visit responses; given a STUDY.yaml, run the "
        "pipeline up to the response, with --out as the output folder.",
    )
    table.add_arguments(respond)
    _add_run_options(respond, scene=False, criteria=False)
    respond.set_defaults(run=_respond, stage="respond")


def _add_cohort(commands: Any) -> None:
    cohort = commands.add_parser(
        "cohort",
        help="many patients, and the tables of all",
        description="Analyse every patient of a list: a CSV table with the columns `patient` and `study` (a study.yaml or a folder of "
        "DICOM files), clinical columns as in study.yaml, and any others, which are handed on to the tables.",
    )
    cohort.add_argument("cohort", type=Path, metavar="COHORT.csv")
    cohort.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    workers = cohort.add_mutually_exclusive_group()
    workers.add_argument("--jobs", type=_positive, default=1, metavar="N", help="processes here (default: 1)")
    workers.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="an existing Dask cluster does the work")
    cohort.add_argument(
        "--perturbations",
        type=_not_negative,
        default=0,
        metavar="N",
        help="read every lesion of the baseline in N perturbed contours too, and write the stability of features",
    )
    cohort.add_argument(
        "--harmonise",
        choices=("centre", "scanner"),
        help="write features without the mark of centre or scanner too (ComBat), beside those that were measured",
    )
    cohort.add_argument("--resume", action="store_true", help="go on with the run that is in the output folder")
    _add_settings(cohort)
    cohort.set_defaults(run=_cohort)


def _add_training(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="a published system on your own cohort",
        description="Fit a recipe to a table (training.csv of a cohort, or any CSV or Parquet table with a patient, a label of 0 and 1, and features), "
        "validate it by nested cross-validation, and write a bundle with its card, report and checklists.",
    )
    train.add_argument("table", type=Path, metavar="TABLE")
    train.add_argument(
        "--recipe", default="default", metavar="ID", help="see `recipes`, or a YAML file (default: %(default)s)"
    )
    train.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="output folder")
    train.add_argument("--exclude", action="append", default=[], metavar="COLUMN", help="leave out; may be repeated")
    train.add_argument(
        "--repeats", type=_positive, metavar="N", help="draws of the outer folds (default: the recipe's)"
    )
    train.add_argument(
        "--bootstraps", type=_not_negative, metavar="N", help="samples for the optimism (default: 20 for small tables)"
    )
    train.add_argument(
        "--permutations",
        type=_not_negative,
        default=0,
        metavar="N",
        help="repeat all with shuffled outcomes (default: 0)",
    )
    train.add_argument("--learning-curve", action="store_true", default=None, help="also for large tables")
    train.add_argument("--jobs", type=_positive, default=1, metavar="N", help="folds at a time (default: 1)")
    train.add_argument("--force", action="store_true", help="go on with too few events")
    train.add_argument(
        "--harmonise",
        metavar="COLUMN",
        help="bring measurements together over `centre` or `scanner` by ComBat, inside the folds",
    )
    train.add_argument(
        "--stability",
        type=Path,
        metavar="FILE",
        help="stability.csv of a cohort: leave out features that do not hold still",
    )
    train.add_argument(
        "--min-icc",
        type=float,
        default=0.75,
        metavar="ICC",
        help="what --stability asks of a feature (default: %(default)s)",
    )
    train.set_defaults(run=_train)

    validate = commands.add_parser(
        "validate", help="a trained bundle on another table: discrimination, calibration, decision curve, centres"
    )
    validate.add_argument("bundle", type=Path, metavar="BUNDLE")
    validate.add_argument("table", type=Path, metavar="TABLE")
    validate.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    validate.set_defaults(run=_validate)
    for command in (train, validate):
        command.add_argument(
            "--label", metavar="COLUMN", help="column of 0 and 1 (default: label, target, or that of the recipe)"
        )
        command.add_argument("--seed", type=_not_negative, default=0, metavar="S")
        command.add_argument(
            "--progress", choices=MODES, default="auto", help="json: one JSON object per line on stderr"
        )

    recipes = commands.add_parser("recipes", help="the published systems and what each needs")
    recipes.add_argument("--check", type=Path, metavar="TABLE", help="say which of them this table can run")
    recipes.add_argument("--json", action="store_true", help="for programs")
    recipes.set_defaults(run=_recipes)


def _train(options: argparse.Namespace) -> int:
    from . import training

    effort = training.Effort(options.repeats, options.bootstraps, options.permutations, options.learning_curve)
    result = training.train(
        options.table,
        options.out,
        recipe=options.recipe,
        label=options.label,
        exclude=options.exclude,
        harmonise=options.harmonise,
        stability=options.stability,
        min_icc=options.min_icc,
        effort=effort,
        seed=options.seed,
        jobs=options.jobs,
        force=options.force,
        progress=display(options.progress),
    )
    return _say_figures(result, options.out)


def _validate(options: argparse.Namespace) -> int:
    from . import training

    result = training.validate(
        options.bundle,
        options.table,
        options.out,
        label=options.label,
        seed=options.seed,
        progress=display(options.progress),
    )
    return _say_figures(result, options.out)


def _say_figures(result: training.Assessment, out: Path) -> int:
    for note in result.notes:
        _say(note)
    found, slope = result.performance.discrimination, result.performance.calibration_slope
    calibration = f", calibration slope {slope.value:.2f}" if slope else ""
    _say(
        f"{result.performance.metric} {found.value:.3f} ({found.lower:.3f} to {found.upper:.3f}){calibration}. {result.reported}"
    )
    _say(f"Report: {out / 'report.html'}. Research use only.")
    return 0


def _recipes(options: argparse.Namespace) -> int:
    from . import training
    from .serialise import to_json
    from .training.listing import images, needs, outcome

    recipes = [training.load_recipe(name) for name in training.recipe_names()]
    if options.check is not None:
        fits = training.check_recipes(options.check)
        if options.json:
            print(json.dumps(to_json(fits), indent=1, ensure_ascii=False))
            return 0
        for fit in fits:
            print(f"{fit.recipe}: {'cannot run' if fit.problems else f'can run with {len(fit.columns)} columns'}")
            for line in (*fit.problems, *fit.notes):
                print(_wrapped(line))
        return 0
    if options.json:
        print(json.dumps(to_json(recipes), indent=1, ensure_ascii=False))
        return 0
    for recipe in recipes:
        print(f"{recipe.id}  ({recipe.flag})  {recipe.title}")
        for line in (outcome(recipe), f"images: {images(recipe)}", *needs(recipe), f"reported: {recipe.reported.text}"):
            print(_wrapped(line))
        print()
    return 0


def _cohort(options: argparse.Namespace) -> int:
    from . import cohort
    from .cohort.pool import DaskPool

    listed = cohort.read_cohort(options.cohort)
    client = None if options.scheduler is None else DaskPool.connect(options.scheduler).client
    try:
        result = cohort.run(
            listed,
            options.out,
            settings=_settings(options),
            jobs=options.jobs,
            client=client,
            resume=options.resume,
            perturbations=options.perturbations,
            harmonise=options.harmonise,
            progress=display(options.progress, lines=True),
        )
    finally:
        if client is not None:
            client.close()
    for note in result.notes:
        _say(note)
    done = len(result.outcomes) - len(result.failed)
    _say(f"{done} of {len(result.outcomes)} patients analysed: {options.out / 'cohort.html'}. Research use only.")
    if result.failed:
        _say(f"not assessed: {len(result.failed)} patients; see {options.out / 'failures.csv'}.")
        return 1
    return 0


def _respond(options: argparse.Namespace) -> int:
    from .response import table

    if options.measurements.suffix.lower() in (".yaml", ".yml"):
        options.study = options.measurements
        return _stage(options)
    return table.run(options)


def _add_run_options(parser: argparse.ArgumentParser, *, scene: bool = True, criteria: bool = True) -> None:
    parser.add_argument(
        "--jobs", type=_positive, default=1, metavar="N", help="processes for the extraction (default: 1)"
    )
    _add_settings(parser, criteria=criteria)
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="keep finished steps here for runs with other settings (they hold image data)",
    )
    if scene:
        parser.add_argument("--no-scene", action="store_true", help="do not write scene.mrb")


def _add_settings(parser: argparse.ArgumentParser, *, criteria: bool = True) -> None:
    """Add what one patient and a cohort choose alike; ``criteria`` also what the response criteria leave open."""
    from .response import table

    if criteria:
        table.add_setting(parser)
    parser.add_argument(
        "--preset", default="ct-lesion", metavar="NAME", help="extraction preset or a pyradiomics parameter file"
    )
    parser.add_argument("--lung-preset", default="ct-lung", metavar="NAME", help="the same for the lungs")
    parser.add_argument("--engine", default="auto", metavar="NAME", help="alignment engine (default: %(default)s)")
    parser.add_argument(
        "--radiomics-engine",
        default="auto",
        metavar="NAME",
        help="auto, pyradiomics, or own, which needs no pyradiomics",
    )
    parser.add_argument("--vessels", action="store_true", help="trace the vessels around lesions in the lung too")
    parser.add_argument(
        "--narrow-ring", action="store_true", help="read features in the 2 mm around each lesion too (ring-0-2mm)"
    )
    parser.add_argument(
        "--paper", choices=("A4", "letter"), default="A4", help="pages of the printed report (default: %(default)s)"
    )
    parser.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="DIR",
        help="use this bundle in place of the shipped one for its flag; may be repeated",
    )
    parser.add_argument(
        "--seed", type=_not_negative, default=0, metavar="S", help="of the intervals' random draws (default: 0)"
    )
    parser.add_argument("--progress", choices=MODES, default="auto", help="json: one JSON object per line on stderr")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("0 or more")
    return value


def _settings(options: argparse.Namespace) -> Settings:
    from .order import Settings

    return Settings(
        options.preset,
        options.lung_preset,
        options.engine,
        options.jobs,
        options.seed,
        options.radiomics_engine,
        tuple(options.setting),
        options.vessels,
        tuple(str(Path(item).resolve()) for item in options.bundle),
        options.paper,
        options.narrow_ring,
    )


def _analyze(options: argparse.Namespace) -> int:
    return _run_analysis(options, options.study, _scene_writer(options), display(options.progress))


def _run_analysis(
    options: argparse.Namespace, study: Path, finish: Callable[..., Sequence[str]], progress: Progress
) -> int:
    from .pipeline import analyze

    result = analyze(
        study, options.out, settings=_settings(options), progress=progress, finish=finish, cache=options.cache
    )
    for flag in result.flags:
        _say(_flag_line(flag.flag, flag.status, flag.probability, flag.lower, flag.upper, flag.reason))
    _say(f"Report: {options.out / 'report.html'}. Research use only.")
    return _closing(result)


def _flag_line(
    name: str, status: str, probability: float | None, lower: float | None, upper: float | None, reason: str
) -> str:
    if status != "assessed" or probability is None or lower is None or upper is None:
        return f"{name}: not assessable. {reason}"
    return f"{name}: {probability:.0%} ({lower:.0%} to {upper:.0%}). {reason}"


def _closing(result: Analysis | StageResult) -> int:
    """Say in one line what could not be assessed as asked."""
    failed = [record.timepoint for record in result.alignments if record.quality.verdict == "failed"]
    if failed:
        _say(
            f"not assessed: {', '.join(failed)} could not be aligned with the baseline; see the warnings in the output."
        )
        return 1
    return 0


def _scene_writer(options: argparse.Namespace) -> Callable[[Analysis, Study, Path, Progress], Sequence[str]]:
    def write(analysis: Analysis, study: Study, folder: Path, progress: Progress) -> Sequence[str]:
        if options.no_scene:
            return ()
        from .scene import write_scene

        try:
            write_scene(analysis, study, folder, folder / "scene.mrb", progress=progress)
        except MissingDependencyError as error:
            return (f"scene.mrb was not written: {error}",)
        return ()

    return write


def _demo(options: argparse.Namespace) -> int:
    from . import simulation
    from .progress import part
    from .workspace import Workspace, code_fingerprint, fingerprint

    progress = display(options.progress)
    scenario = simulation.demo_scenario()
    key = fingerprint(code_fingerprint(), options.size, options.patient_seed)

    def make(folder: Path) -> None:
        patient = simulation.simulate_patient(
            options.patient_seed, size=options.size, scenario=scenario, progress=part(progress, 0.0, 0.15)
        )
        simulation.write_patient(patient, folder, progress=part(progress, 0.15, 0.2))

    with Workspace(options.out) as workspace:
        folder, _ = workspace.step("virtual-patient", key, make)
    write_scene = _scene_writer(options)

    def finish(analysis: Analysis, study: Study, result: Path, progress: Progress) -> Sequence[str]:
        warnings = write_scene(analysis, study, result, progress)
        shutil.copytree(folder, result / "patient", copy_function=_link_or_copy)
        return warnings

    code = _run_analysis(options, folder / "study.yaml", finish, part(progress, 0.2, 1.0))
    shutil.rmtree(workspace.folder, ignore_errors=True)  # the virtual patient, if the result was there already
    return code


def _link_or_copy(source: str, target: str) -> None:
    """Give a large file a second name where the file system can, instead of copying it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _stage(options: argparse.Namespace) -> int:
    from .pipeline import run_stage

    if options.stage not in get_args(StageName):
        raise InputError(f"{options.stage}: this is no stage.")
    result = run_stage(
        options.study,
        options.out,
        options.stage,
        settings=_settings(options),
        progress=display(options.progress),
        cache=options.cache,
    )
    _say(f"Written to {options.out}.")
    return _closing(result)


def _simulate(options: argparse.Namespace) -> int:
    from .simulation import simulate_cohort

    if options.patients < 1:
        raise InputError(f"--patients {options.patients}: at least one is needed.")
    path = simulate_cohort(
        options.patients, options.seed, options.out, size=options.size, progress=display(options.progress)
    )
    _say(f"Written: {path}")
    return 0


def _models(options: argparse.Namespace) -> int:
    from .classifiers import list_bundles
    from .serialise import to_json

    bundles = list_bundles()
    if options.json:
        print(json.dumps(to_json([bundle.card for bundle in bundles]), indent=1, ensure_ascii=False))
        return 0
    for bundle in bundles:
        card = bundle.card
        print(f"{card.id} {card.version}  ({card.flag}, {card.kind})  {card.title}")
        for title, text in (("purpose", card.purpose), ("population", card.population), ("endpoint", card.endpoint)):
            print(_wrapped(f"{title}: {text}"))
        print(_wrapped(f"inputs: {', '.join(item.name for item in card.inputs)}"))
        print(_wrapped(f"training: {_made_from(bundle)}"))
        for title, figures in (("internal", card.validation.internal), ("external", card.validation.external)):
            print(_wrapped(f"{title} validation: {'none' if figures is None else _figures(figures)}"))
        print(_wrapped(f"reported: {card.reported}"))
        for limit in card.limits:
            print(_wrapped(f"limit: {limit}"))
        for source in card.sources:
            print(_wrapped(f"source: {card.cite(source.id)}"))
        print(_wrapped(f"licence: {card.licence}"))
        print()
    return 0


def _made_from(bundle: Bundle) -> str:
    training = bundle.card.training
    if training.patients is None:
        return training.description
    lesions = bundle.predictor is not None and bundle.predictor.model.unit == "lesion"
    return (
        f"{training.patients} {'lesions' if lesions else 'patients'}, {training.events} events; {training.description}"
    )


def _figures(found: Performance) -> str:
    parts = [f"AUC {found.auc.value:.3f} ({found.auc.lower:.3f}-{found.auc.upper:.3f})"]
    others = (
        ("calibration slope", found.calibration_slope),
        ("intercept", found.calibration_intercept),
        ("Brier score", found.brier),
    )
    parts += [f"{name} {value:.3f}" for name, value in others if value is not None]
    return f"{', '.join(parts)}; {found.scheme}"


def _presets(options: argparse.Namespace) -> int:
    from .radiomics import load_preset, preset_names

    presets = [load_preset(name) for name in preset_names()]
    if options.json:
        rows = [
            {"name": item.name, "title": item.title, "rationale": item.rationale, "features": len(item.columns)}
            for item in presets
        ]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    for item in presets:
        print(f"{item.name}  ({len(item.columns)} features)  {item.title}")
        print(_wrapped(item.rationale))
        print()
    return 0


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 110, initial_indent="  ", subsequent_indent="  ")


if __name__ == "__main__":
    sys.exit(main())
