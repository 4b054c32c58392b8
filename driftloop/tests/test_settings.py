"""Settings are read from the environment, described completely, and rejected by name if they are invalid."""

import sys

import pytest

from driftloop.command_line import exit_on_invalid_settings, parse_settings
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


def test_load_settings_reads_nested_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    set_required(monkeypatch)
    monkeypatch.setenv("DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS", "a:1,b:2")
    settings = load_settings(ExampleSettings)
    assert settings.kafka == KafkaSettings(bootstrap_servers="a:1,b:2")
    assert settings.example == ExampleSection(port=1, key="k")


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
