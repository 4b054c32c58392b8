"""Settings are read from the environment, described completely, and rejected by name if they are invalid."""

import sys
from typing import get_args

import pytest

from drift_worker.settings import DriftWorkerSettings
from driftloop.command_line import exit_on_invalid_settings, parse_settings
from driftloop.drift.distances import DistanceName
from driftloop.drift.settings import WindowSettings
from driftloop.settings import (
    DeadLetterSettings,
    InvalidSettings,
    KafkaSettings,
    RegistrySettings,
    Settings,
    StorageSettings,
    TracingSettings,
    Variable,
    list_variables,
    load_settings,
)
from driftloop.settings_section import SettingsSection
from driftloop.telemetry import tracing
from predictor.settings import PredictorSettings, RelaySettings
from tests.support.model_names import USABLE_NAMES
from trainer.settings import TrainerSettings


class ExampleSection(SettingsSection):
    """A section of a service."""

    port: int
    key: str
    width: int = 3


class ExampleSettings(Settings):
    """A service's settings."""

    registry: RegistrySettings
    example: ExampleSection


def set_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", "flights")
    monkeypatch.setenv("DRIFTLOOP_EXAMPLE__PORT", "1")
    monkeypatch.setenv("DRIFTLOOP_EXAMPLE__KEY", "k")


@pytest.mark.parametrize(
    ("environment", "messages"),
    [
        ({}, ["DRIFTLOOP_REGISTRY__MODEL", "DRIFTLOOP_EXAMPLE__PORT", "DRIFTLOOP_EXAMPLE__KEY"]),
        (
            {"DRIFTLOOP_EXAMPLE__PORT": "x", "DRIFTLOOP_EXAMPLE__KEY": "k"},
            ["DRIFTLOOP_EXAMPLE__PORT: Input should be a valid"],
        ),
        ({"DRIFTLOOP_KAFKA__BOOTSTRAP": "x"}, ["DRIFTLOOP_KAFKA__BOOTSTRAP: Extra inputs are not permitted"]),
        ({"DRIFTLOOP_KAFKA__SESSION_TIMEOUT_SECONDS": "1"}, ["DRIFTLOOP_KAFKA__SESSION_TIMEOUT_SECONDS"]),
        ({"DRIFTLOOP_KAFKA": "no json"}, ['"kafka"']),
        (
            {"DRIFTLOOP_KAFKA__SECURITY_PROTOCOL": "SSL", "DRIFTLOOP_KAFKA__SSL_CAFILE": "/nowhere"},
            ["DRIFTLOOP_KAFKA__SSL_CAFILE: Path does"],
        ),
        (
            {"DRIFTLOOP_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"},
            ["DRIFTLOOP_KAFKA: SECURITY_PROTOCOL SASL_SSL needs SASL_USERNAME"],
        ),
        (
            {"DRIFTLOOP_KAFKA__SSL_CAFILE": __file__},
            ["DRIFTLOOP_KAFKA: SECURITY_PROTOCOL PLAINTEXT does not use SSL_CAFILE"],
        ),
        (
            {"DRIFTLOOP_KAFKA__SSL_KEYFILE": __file__},
            ["DRIFTLOOP_KAFKA: SSL_CERTFILE and SSL_KEYFILE belong together"],
        ),
    ],
)
def test_load_settings_names_each_missing_or_invalid_variable(
    environment: dict[str, str], messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as error:
        load_settings(ExampleSettings)
    for message in messages:
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DRIFTLOOP_REGISTRY__URI", "127.0.0.1:5000"),
        ("DRIFTLOOP_REGISTRY__URI", "mlruns"),
        ("DRIFTLOOP_REGISTRY__URI", "file:///mlruns"),
        ("DRIFTLOOP_REGISTRY__URI", "http://"),
        ("DRIFTLOOP_REGISTRY__URI", "http://mlflow:port"),
        ("DRIFTLOOP_TRACING__ENDPOINT", "localhost:4318"),
    ],
)
def test_load_settings_rejects_an_address_that_is_no_url(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_required(monkeypatch)
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettings) as error:
        load_settings(ExampleSettings)
    assert f"{variable}: {value!r} is not a URL" in str(error.value)


def test_an_empty_optional_url_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    set_required(monkeypatch)
    monkeypatch.setenv("DRIFTLOOP_TRACING__ENDPOINT", "")
    assert load_settings(ExampleSettings).tracing.endpoint is None
    assert StorageSettings(endpoint="").endpoint is None


@pytest.mark.parametrize(
    ("url", "scheme", "root"),
    [
        ("gs://my-bucket", "gs", "my-bucket"),
        ("s3://my-bucket/a/b/", "s3", "my-bucket/a/b"),
        ("az://container/loans", "az", "container/loans"),
        ("file:///var/lib/driftloop%20store", "file", "/var/lib/driftloop store"),
    ],
)
def test_storage_settings_split_the_url_of_a_store(url: str, scheme: str, root: str) -> None:
    settings = StorageSettings(url=url)
    assert (settings.url, settings.scheme, settings.root) == (url.rstrip("/"), scheme, root)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"URL": "my-bucket"}, "URL: 'my-bucket' is not the URL of an object store: it must be gs://BUCKET"),
        ({"URL": "http://my-bucket"}, "URL: 'http://my-bucket' is not the URL of an object store"),
        ({"URL": "gs://"}, "URL: 'gs://' is not the URL of an object store"),
        ({"URL": "gs://b//x"}, "URL: 'gs://b//x' names no bucket, container or folder, or has an empty part"),
        ({"URL": "file:///a/../b"}, "URL: 'file:///a/../b' names no bucket"),
        ({"URL": "file://folder"}, "URL: 'file://folder' has no absolute path"),
        ({"URL": "s3://key:secret@bucket"}, "URL: a URL of s3:// has a bucket or container and a folder, and none of"),
        ({"BUCKET": "mine"}, "DRIFTLOOP_STORAGE__BUCKET is not read any more: in its place set "),
        ({"BUCKET": "mine"}, "set DRIFTLOOP_STORAGE__URL=gs://mine"),
        ({"URL": "file:///a", "ENDPOINT": "http://x"}, "unset DRIFTLOOP_STORAGE__ENDPOINT"),
    ],
)
def test_wrong_store_is_refused_with_the_value_to_give(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"DRIFTLOOP_STORAGE__{name}", value)
    with pytest.raises(InvalidSettings) as error:
        load_settings(StoreSettings)
    assert message in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(("scheme", "library", "extra"), [("s3", "s3fs", "s3"), ("az", "adlfs", "azure")])
def test_store_without_its_library_is_refused_with_the_extra_to_install(
    scheme: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Services and commands say so when they start, and not in the middle of their work."""
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", f"{scheme}://b")
    monkeypatch.setattr(sys, "argv", ["driftloop-drift-worker"])
    with pytest.raises(SystemExit) as ended:
        parse_settings(DriftWorkerSettings, "", "")
    assert ended.value.code == 2
    message = f"DRIFTLOOP_STORAGE__URL: {scheme}:// needs {library}, which is not installed: "
    assert capsys.readouterr().err == f"{message}pip install 'driftloop[{extra}]'\n"


class StoreSettings(Settings):
    """Settings of a service with an object store."""

    storage: StorageSettings = StorageSettings()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "https://user:secret@mlflow.example/path", "sqlite:///m.db"])
def test_registry_settings_accept_servers_and_sqlite(uri: str) -> None:
    assert RegistrySettings(uri=uri, model="m").uri == uri


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://a.example,https://B.example:8443", ("https://a.example", "https://b.example:8443")),
        (" http://localhost:3000 , ", ("http://localhost:3000",)),
        ('["https://a.example", "https://b.example"]', ("https://a.example", "https://b.example")),
    ],
)
def test_origins_are_a_plain_or_a_json_list(
    value: str, origins: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLOOP_PREDICTOR__CORS_ORIGINS", value)
    assert load_settings(RelaySettings).predictor.cors_origins == origins


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CORS_ORIGINS", "https://a.example/", ": 'https://a.example/' is not an origin: leave out"),
        ("CORS_ORIGINS", "https://a.example,b.example", ": 'b.example' is not a URL"),
        ("CORS_ORIGINS", '["https://a.example"', ": Expecting ',' delimiter"),
        ("PINNED_VERSION", "champion", ": 'champion' is not a version: versions are numbers"),
        ("PINNED_VERSION", "", ": '' is not a version"),
        ("PINNED_VERSION", "03", ": '03' is not a version"),
        ("MAX_ROW", "5", ": Extra inputs are not permitted"),  # MAX_ROWS is meant
    ],
)
def test_predictor_settings_reject_a_value_with_its_setting(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DRIFTLOOP_PREDICTOR__{variable}", value)
    with pytest.raises(InvalidSettings) as error:
        load_settings(RelaySettings)
    assert f"DRIFTLOOP_PREDICTOR__{variable}{message}" in str(error.value)


@pytest.mark.parametrize("name", USABLE_NAMES)
def test_registry_settings_accept_names_that_mlflow_and_folders_can_have(name: str) -> None:
    assert RegistrySettings(model=name).model == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is blank"),
        ("  ", "is blank"),
        ("a/b", "has a /, a : or a backslash"),
        ("a:b", "has a /, a : or a backslash"),
        (".", "means another folder"),
        ("..", "means another folder"),
        ("a\nb", "cannot be printed"),
        ("é" * 128, "more than 255 bytes"),
        ('it\'s "it"', "both kinds of quotes"),
    ],
)
def test_load_settings_rejects_a_model_name_with_the_reason(
    name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_required(monkeypatch)
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", name)
    with pytest.raises(InvalidSettings, match=rf"^DRIFTLOOP_REGISTRY__MODEL: .*{reason}"):
        load_settings(ExampleSettings)


def literal_settings() -> list[tuple[type[Settings], Variable]]:
    return [
        (model, variable)
        for model in (PredictorSettings, DriftWorkerSettings, TrainerSettings)
        for variable in list_variables(model)
        if variable.choices and not variable.name.endswith("DISTANCES")
    ]


@pytest.mark.parametrize(
    ("model", "variable"), literal_settings(), ids=lambda value: getattr(value, "name", None) or value.__name__
)
def test_a_value_that_is_no_choice_is_rejected_with_the_setting_and_its_choices(
    model: type[Settings], variable: Variable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable.name, "nothing of it")
    with pytest.raises(InvalidSettings) as error:
        load_settings(model)
    (line,) = [line for line in str(error.value).splitlines() if line.startswith(f"{variable.name}: ")]
    assert all(repr(choice) in line for choice in variable.choices)


def test_list_variables_gives_choices_of_literal_types() -> None:
    choices = {variable.name: variable.choices for variable in list_variables(TrainerSettings)}
    assert choices["DRIFTLOOP_LOG__LEVEL"] == ("debug", "info", "warning", "error")
    assert choices["DRIFTLOOP_LOG__FORMAT"] == ("json", "human")
    assert choices["DRIFTLOOP_CALIBRATION__DISTANCES"] == get_args(DistanceName)
    assert choices["DRIFTLOOP_REGISTRY__URI"] == ()


def test_load_settings_reads_nested_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    set_required(monkeypatch)
    monkeypatch.setenv("DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS", "a:1,b:2")
    settings = load_settings(ExampleSettings)
    assert settings.kafka == KafkaSettings(bootstrap_servers="a:1,b:2")
    assert settings.example == ExampleSection(port=1, key="k")


@pytest.mark.parametrize("text", ["a.b.C,d.e.F", " a.b.C, d.e.F,", '["a.b.C", "d.e.F"]'])
def test_load_settings_reads_trusted_types_as_text_or_json(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    set_required(monkeypatch)
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__TRUSTED_TYPES", text)
    assert load_settings(ExampleSettings).registry.trusted_types == ("a.b.C", "d.e.F")


@pytest.mark.parametrize("text", ["C", "a.b.C;d.e.F", "[a.b.C]", '["a b.C"]'])
def test_load_settings_names_the_variable_of_trusted_types(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    set_required(monkeypatch)
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__TRUSTED_TYPES", text)
    with pytest.raises(InvalidSettings, match=r"^DRIFTLOOP_REGISTRY__TRUSTED_TYPES: "):
        load_settings(ExampleSettings)


def test_list_variables_gives_name_description_and_default() -> None:
    variables = {variable.name: variable for variable in list_variables(ExampleSettings)}
    assert variables["DRIFTLOOP_EXAMPLE__PORT"] == Variable("DRIFTLOOP_EXAMPLE__PORT", "", None)
    assert variables["DRIFTLOOP_EXAMPLE__WIDTH"].default == "3"
    assert variables["DRIFTLOOP_KAFKA__SSL_CAFILE"].default == "not set"
    assert variables["DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS"].default == "127.0.0.1:9092"
    assert variables["DRIFTLOOP_INSTANCE_ID"].default == "gethostname()"


@pytest.mark.parametrize("model", [Settings, RegistrySettings, StorageSettings, DeadLetterSettings, WindowSettings])
def test_every_shared_setting_is_described(model: type[Settings]) -> None:
    assert all(variable.description for variable in list_variables(model))


def test_parse_settings_returns_settings_without_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    set_required(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["driftloop-example"])
    assert parse_settings(ExampleSettings, "An example.", "driftloop-example").example.port == 1


def test_parse_settings_prints_invalid_settings_and_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["driftloop-example"])
    with pytest.raises(SystemExit) as exit_:
        parse_settings(ExampleSettings, "An example.", "driftloop-example")
    assert exit_.value.code == 2
    assert "DRIFTLOOP_REGISTRY__MODEL: Field required" in capsys.readouterr().err


def test_parse_settings_help_lists_settings_and_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["driftloop-example", "--help"])
    with pytest.raises(SystemExit) as exit_:
        parse_settings(ExampleSettings, "An example.", "driftloop-example --verbose\ndriftloop-example --quiet")
    assert exit_.value.code == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "An example." in lines
    assert {"driftloop-example --verbose", "driftloop-example --quiet"} <= set(lines)
    at = lines.index("DRIFTLOOP_REGISTRY__ALIAS")
    assert lines[at + 1] == "alias in the model registry that names the version to serve (default: champion)"
    at = lines.index("DRIFTLOOP_LOG__LEVEL")
    assert lines[at + 1] == "least severe level that is logged (one of debug, info, warning, error; default: info)"


def test_parse_settings_rejects_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["driftloop-example", "--port"])
    with pytest.raises(SystemExit) as exit_:
        parse_settings(ExampleSettings, "An example.", "driftloop-example")
    assert exit_.value.code == 2
    assert "--port" in capsys.readouterr().err


def test_traces_without_opentelemetry_are_an_invalid_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "driftloop.telemetry.otel", None)  # its import fails as without the extra
    with pytest.raises(InvalidSettings):
        tracing.start("test", TracingSettings(endpoint="http://127.0.0.1:4318"))
    with pytest.raises(SystemExit) as exit_, exit_on_invalid_settings():
        tracing.start("test", TracingSettings(endpoint="http://127.0.0.1:4318"))
    assert exit_.value.code == 2
    assert "DRIFTLOOP_TRACING__ENDPOINT: install driftloop[tracing]" in capsys.readouterr().err
    assert not tracing.is_enabled()
