"""The steps of an adoption, from a version in MLflow to one that is served and watched: :func:`adopt` lists them."""

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pandas as pd

from driftloop.command_line import user_name
from driftloop.drift.comparable_columns import FeatureKind
from driftloop.drift.profile import DriftProfile
from driftloop.drift.profile_summary import profile_tags
from driftloop.drift.settings import WindowSettings
from driftloop.drift.window_length import choose_window_rows
from driftloop.errors import InvalidInput
from driftloop.events import ModelStateChanged, new_event_id
from driftloop.registry.library_versions import mismatch_note, read_schema, require_compatible
from driftloop.registry.loading import download_model, load_estimator, load_model, untrusted_types
from driftloop.registry.model_logging import log_model
from driftloop.registry.model_registry import PARAM_TRAINED_THROUGH, ModelRegistry
from driftloop.registry.recorded_privacy import privacy_tags
from driftloop.registry.untrusted_types import can_run_code, explain_untrusted, is_installed
from driftloop.settings import RegistrySettings
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference, save_reference
from driftloop.telemetry import tracing
from driftloop_cli.adopt.conversion import convert
from driftloop_cli.adopt.data import AdoptionRows, infer_kinds, read_rows
from driftloop_cli.adopt.estimator import Answers, Comparison, answer, compare
from driftloop_cli.adopt.reference import build_reference
from driftloop_cli.adopt.source import NotAdoptable, SourceModel, fetch_source
from driftloop_cli.settings import StorageCliSettings

TAG_MODEL, TAG_VERSION, TAG_RUN = "adopted_model", "adopted_version", "adopted_run"


class AdoptRegistrySettings(RegistrySettings):
    """The registry; its model is an argument of the command."""

    model: str = ""


class AdoptSettings(StorageCliSettings):
    """Settings of ``driftloop adopt``."""

    registry: AdoptRegistrySettings = AdoptRegistrySettings()
    window: WindowSettings = WindowSettings()


@dataclass(frozen=True)
class AdoptionOptions:
    """What was typed."""

    model: str
    version: str | None
    data: Path
    target: str | None = None
    time: str | None = None
    timezone: str = "UTC"
    categories: Collection[str] = ()
    method: str | None = None
    name: str | None = None
    trust_pickle: bool = False
    allow_network: bool = False
    promote: bool = False


class Conversation(NamedTuple):
    """How the steps talk to the person who waits."""

    report: Callable[[str], None]
    """Says what is done next, or what was found."""
    confirm_types: Callable[[Sequence[str]], bool]
    """Asks whether types are to be trusted."""


class Adoption(NamedTuple):
    """What was done."""

    source: SourceModel
    model: str
    version: str
    method: str
    kinds: dict[str, FeatureKind]
    inferred: list[str]
    """What the source version lacked, and was inferred from the rows: signature, example."""
    added_types: list[str]
    """Types that had to be trusted besides those that services trust now."""
    comparison: Comparison | None
    """The answers of the original and of the converted estimator; None if nothing was converted."""
    rows: int
    ordered: bool
    """Whether the rows have times."""
    trained_through: pd.Timestamp
    reference_url: str
    profile: DriftProfile
    change: ModelStateChanged | None
    """The event to publish: the alias has moved."""


class _Checked(NamedTuple):
    """An estimator that may be loaded by services, and its answers."""

    estimator: Any
    file: Path
    answers: Answers
    added_types: list[str]
    comparison: Comparison | None


def adopt(settings: AdoptSettings, options: AdoptionOptions, conversation: Conversation) -> Adoption:
    """Adopt a version, and return what was done.

    1. Read the rows.
    2. Download the version. If it is not in skops' format, convert it, in a process of its own.
    3. Ask about types that are not trusted yet. Load the file as services do, and compare its answers.
    4. Calibrate the reference.
    5. Log the model with signature and example, load it again as services do, and register it with its reference.
    6. Move the alias, if that was asked for.

    Raises:
        NotAdoptable: The version cannot be adopted, or a person has refused.
        ModelRejected: The file cannot be loaded as services load it.
        InvalidInput: The rows do not fit.
        DependencyUnavailable: The registry or the store does not answer.
    """
    report = conversation.report
    registry = ModelRegistry(settings.registry.model_copy(update={"model": options.model}))
    report(f"reads {options.data}")
    rows = read_rows(options.data, options.target, options.time, options.timezone)
    choose_window_rows(len(rows.frame), settings.window.rows)  # refuses before the model is loaded
    with tempfile.TemporaryDirectory(prefix="driftloop-adopt-") as name:
        folder = Path(name)
        report(f"downloads {options.model}")
        source = fetch_source(registry, options.version, folder)
        report(describe_source(source) + mismatch_note(source.library_versions))
        checked = _check(settings, options, source, rows, folder, conversation)
        kinds = infer_kinds(checked.answers.features, options.categories)
        report(f"calibrates the reference with {len(rows.frame):,} rows")
        privacy = settings.privacy.privacy
        privacy.require_features(list(kinds), f"the model {options.model}")
        reference = build_reference(
            checked.estimator, checked.answers, kinds, rows, options.timezone, settings.window, privacy
        )
        report("logs the model, and loads it as services do")
        return _register(settings, options, source, checked, kinds, rows, reference, folder)


def describe_source(source: SourceModel) -> str:
    """Return what a version is, in words."""
    by = f" by {source.logged_by}" if source.logged_by else ""
    return (
        f"version {source.version} of {source.model}, logged{by} as {source.format} (run {source.run_id or 'unknown'})"
    )


def _check(
    settings: AdoptSettings,
    options: AdoptionOptions,
    source: SourceModel,
    rows: AdoptionRows,
    folder: Path,
    conversation: Conversation,
) -> _Checked:
    file, original = source.file, None
    if source.is_pickle and not options.trust_pickle:
        raise NotAdoptable(
            f"{describe_source(source)}: loading such a file runs whatever code its author has put into it. If you "
            "trust everybody who could write it, add --trust-pickle: it is then converted to skops in a process "
            "without credentials and network"
        )
    if source.format != "skops":
        conversation.report(f"converts it from {source.format} to skops, in a process of its own")
        converted = convert(
            source,
            rows.frame,
            options.method,
            folder,
            may_use_network=options.allow_network or not source.is_pickle,
        )
        file, original = converted.file, converted.answers
    added_types = _trust(settings, options, file, conversation)
    require_compatible(source.library_versions, read_schema(file))
    estimator = load_estimator(file, (*settings.registry.trusted_types, *added_types))
    conversation.report(f"predicts {len(rows.frame):,} rows")
    try:
        answers = answer(estimator, source.column_names, rows.frame, options.method)
    except InvalidInput:
        raise
    except Exception as error:  # an estimator is somebody else's code and may raise anything
        raise NotAdoptable(f"the model cannot predict the rows: {type(error).__name__}: {error}") from error
    comparison = None if original is None else compare(original, answers.values)
    if comparison is not None and comparison.different_rows:
        raise NotAdoptable(
            f"as skops it answers otherwise in {comparison.different_rows:,} of {comparison.rows:,} rows (by up to "
            f"{comparison.max_difference:.3g}): train the model again, and log it with serialization_format='skops'"
        )
    return _Checked(estimator, file, answers, added_types, comparison)


def _trust(settings: AdoptSettings, options: AdoptionOptions, file: Path, conversation: Conversation) -> list[str]:
    """Return the types that a person has trusted now.

    Raises:
        NotAdoptable: A type can never be trusted, or the person refuses.
    """
    known = settings.registry.trusted_types
    names = untrusted_types(file, known)
    if not names:
        return []
    if any(can_run_code(name) or not is_installed(name) for name in names):
        raise NotAdoptable(explain_untrusted(names, known, {}))
    setting = f"DRIFTLOOP_REGISTRY__TRUSTED_TYPES={','.join([*known, *names])}"
    if options.promote:
        raise NotAdoptable(
            f"it contains types that services do not trust, so that none would serve it: {', '.join(names)}. If "
            f"creating them runs no code that the file chooses, set {setting} for predictor, trainer and this command, "
            "or leave --promote out"
        )
    if not conversation.confirm_types(names):
        raise NotAdoptable(f"these types are not trusted: {', '.join(names)}")
    conversation.report(f"set for predictor, trainer and commands: {setting}")
    return names


def _register(
    settings: AdoptSettings,
    options: AdoptionOptions,
    source: SourceModel,
    checked: _Checked,
    kinds: dict[str, FeatureKind],
    rows: AdoptionRows,
    reference: Reference,
    folder: Path,
) -> Adoption:
    name = options.name or options.model
    registry = ModelRegistry(settings.registry.model_copy(update={"model": name}))
    inputs = source.description.signature.inputs if source.column_names is not None else None
    trained_through = pd.Timestamp(source.created) if rows.times is None else rows.times.iloc[-1]
    tags = {TAG_MODEL: source.model, TAG_VERSION: source.version, TAG_RUN: source.run_id}
    adoption_id, explanation = new_event_id(), f"adopted from {describe_source(source)}"
    mlflow.set_experiment(name)
    with mlflow.start_run(run_name=f"adopt {source.model} {source.version}") as run:
        mlflow.set_tags(
            {
                **tags,
                "adopted_format": source.format,
                "retrain_id": adoption_id,
                "reason": explanation,
                "requested_by": user_name(),
            }
        )
        mlflow.log_params({PARAM_TRAINED_THROUGH: str(trained_through), "reference_rows": len(rows.frame)})
        uri = log_model(
            checked.estimator,
            checked.answers.features,
            checked.answers.method,
            inputs=inputs,
            skops_file=checked.file,
        )
    (folder / "logged").mkdir()
    loaded = load_model(
        download_model(uri, folder / "logged"), (*settings.registry.trusted_types, *checked.added_types)
    )
    if loaded.example is None:
        raise NotAdoptable("MLflow has not stored the input example")
    version = registry.create_version(
        uri, adoption_id, {**tags, **profile_tags(reference.profile), **privacy_tags(reference.profile.privacy)}
    )
    store = ObjectStore(settings.storage).require_answer()
    reference_url = save_reference(store, name, version, reference, str(run.info.run_id))
    registry.describe(version, explanation)
    change = None
    if options.promote:
        change = ModelStateChanged(
            traceparent=tracing.current_traceparent(),
            retrain_id=adoption_id,
            model=name,
            version=version,
            state="promoted",
            explanation=f"{explanation}; promoted without a comparison",
            trained_through=trained_through.to_pydatetime(),
        )
        registry.record_result(version, change)
        registry.promote(version)
    return Adoption(
        source=source,
        model=name,
        version=version,
        method=checked.answers.method,
        kinds=kinds,
        inferred=[
            *(["signature"] if inputs is None else []),
            *(["example"] if source.description.saved_input_example_info is None else []),
        ],
        added_types=checked.added_types,
        comparison=checked.comparison,
        rows=len(rows.frame),
        ordered=rows.times is not None,
        trained_through=trained_through,
        reference_url=reference_url,
        profile=reference.profile,
        change=change,
    )
