"""Wrong settings stop the start and are named."""

import pytest

from driftloop.settings import KafkaSettings, RegistrySettings, Settings, SettingsSection, load


class Mine(SettingsSection):
    """A section of a service."""

    port: int
    key: str
    width: int = 3


class MySettings(Settings):
    """A service's settings."""

    registry: RegistrySettings
    mine: Mine


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, ["DRIFTLOOP_REGISTRY__MODEL", "DRIFTLOOP_MINE__PORT", "DRIFTLOOP_MINE__KEY"]),
        ({"DRIFTLOOP_MINE__PORT": "x", "DRIFTLOOP_MINE__KEY": "k"}, ["DRIFTLOOP_MINE__PORT: Input should be a valid"]),
        ({"DRIFTLOOP_KAFKA__BOOTSTRAP": "x"}, ["DRIFTLOOP_KAFKA__BOOTSTRAP: Extra inputs are not permitted"]),
        ({"DRIFTLOOP_KAFKA__SESSION_TIMEOUT_SECONDS": "1"}, ["DRIFTLOOP_KAFKA__SESSION_TIMEOUT_SECONDS"]),
        ({"DRIFTLOOP_KAFKA": "no json"}, ['"kafka"']),
        (
            {"DRIFTLOOP_KAFKA__SECURITY_PROTOCOL": "SSL", "DRIFTLOOP_KAFKA__SSL_CAFILE": "/nowhere"},
            ["DRIFTLOOP_KAFKA__SSL_CAFILE: Path does"],
        ),
        ({"DRIFTLOOP_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}, ["DRIFTLOOP_KAFKA: Value error, SASL_SSL needs USERNAME"]),
        ({"DRIFTLOOP_KAFKA__SSL_CAFILE": __file__}, ["DRIFTLOOP_KAFKA: Value error, PLAINTEXT has no use for CA"]),
        ({"DRIFTLOOP_KAFKA__SSL_KEYFILE": __file__}, ["DRIFTLOOP_KAFKA: Value error, a certificate needs its key"]),
    ],
)
def test_a_wrong_or_missing_setting_is_named_and_stops_the_start(
    environment: dict[str, str],
    named: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        load(MySettings)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    for name in named:
        assert name in printed


def test_settings_are_read_from_nested_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", "flights")
    monkeypatch.setenv("DRIFTLOOP_MINE__PORT", "1")
    monkeypatch.setenv("DRIFTLOOP_MINE__KEY", "k")
    monkeypatch.setenv("DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS", "a:1,b:2")
    settings = load(MySettings)
    assert settings.kafka == KafkaSettings(bootstrap_servers="a:1,b:2")
    assert settings.mine == Mine(port=1, key="k")


def test_every_setting_is_described() -> None:
    for section in (KafkaSettings, RegistrySettings):
        for name, field in section.model_fields.items():
            assert field.description, name
