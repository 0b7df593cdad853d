"""`flask settings check`."""

from cryptography.fernet import Fernet

from rdservice.config.settings import Settings
from rdservice.encryption import key_id
from rdservice.services import Services
from tests.integration.cli.conftest import MakeRun, Run


def test_good_settings_are_shown_without_any_secret(
    run_with: MakeRun, make_services: object, variables: dict[str, str]
) -> None:
    assert callable(make_services)
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    values = variables | {
        "RDSTATION_CLIENT_SECRET": "first-secret,second-secret",
        "TOKEN_ENCRYPTION_KEYS": ",".join(keys),
        "METRICS_TOKEN": "the-metrics-token",
    }
    services: Services = make_services(Settings.from_mapping(values))
    ended = run_with(services)("settings", "check")
    assert ended.exit_code == 0
    assert values["RDSTATION_REDIRECT_URI"] in ended.stdout
    assert "client secrets: 2" in ended.stdout
    assert f"{key_id(keys[0].encode())}, {key_id(keys[1].encode())}" in ended.stdout
    secrets = ["first-secret", "second-secret", "the-metrics-token", values["SECRET_KEY"], *keys]
    for secret in [*secrets, values["DATABASE_URL"]]:
        assert secret not in ended.output


def test_the_check_needs_no_database(run_without_database: Run) -> None:
    assert run_without_database("settings", "check").exit_code == 0
