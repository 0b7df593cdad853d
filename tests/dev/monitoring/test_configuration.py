"""The configurations to copy: what Prometheus and Alertmanager themselves think of them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.monitoring.programs import Alertmanager, Prometheus, Target, shorten
from tests.support.rule_files import ALERTS, MONITORING, RULES


def checked(program: str, package: str, *arguments: str) -> None:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed (Debian: {package})")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check_prometheus(config: Path, *options: str) -> None:
    checked("promtool", "prometheus", "check", "config", *options, str(config))


def check_alertmanager(config: Path) -> None:
    checked("amtool", "prometheus-alertmanager", "check-config", str(config))


def prometheus_yml(name: str = "prometheus.yml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((MONITORING / name).read_text())
    return loaded


def test_prometheus_understands_its_configuration_with_the_rules_beside_it(tmp_path: Path) -> None:
    shutil.copy(MONITORING / "prometheus.yml", tmp_path)
    shutil.copytree(MONITORING / "rules", tmp_path / "rules")
    (tmp_path / "rdservice-metrics-token").write_text("token")
    check_prometheus(tmp_path / "prometheus.yml")


def test_an_agent_understands_its_configuration(tmp_path: Path) -> None:
    shutil.copy(MONITORING / "prometheus-agent.yml", tmp_path)
    for secret in ("rdservice-metrics-token", "remote-write-password"):
        (tmp_path / secret).write_text("secret")
    check_prometheus(tmp_path / "prometheus-agent.yml", "--agent")


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-agent.yml"])
def test_it_scrapes_one_address_through_the_router_with_the_token(name: str) -> None:
    config = prometheus_yml(name)
    [job] = config["scrape_configs"]
    assert re.fullmatch("rdservice.*", job["job_name"])
    assert job["scheme"] == "https"
    assert job["authorization"] == {"credentials_file": "rdservice-metrics-token"}
    [addresses] = job["static_configs"]
    assert len(addresses["targets"]) == 1


def test_the_runbooks_address_is_a_label_that_no_alert_keeps() -> None:
    config = prometheus_yml()
    [label] = config["global"]["external_labels"]
    assert all(f"$externalLabels.{label} " in rule["annotations"]["runbook_url"] for rule in ALERTS.values())
    assert config["alerting"]["alert_relabel_configs"] == [{"action": "labeldrop", "regex": label}]


def test_alertmanager_understands_its_configuration() -> None:
    check_alertmanager(MONITORING / "alertmanager.yml")


@pytest.mark.parametrize("kind", ["email", "slack", "webhook"])
def test_alertmanager_understands_each_example_receiver_without_its_number_signs(
    kind: str, tmp_path: Path
) -> None:
    text, changed = re.subn(
        rf"^    # {kind}_configs:\n(?:    #   .*\n)+",
        lambda found: found[0].replace("    # ", "    "),
        (MONITORING / "alertmanager.yml").read_text(),
        flags=re.MULTILINE,
    )
    assert changed == 1
    config = tmp_path / "alertmanager.yml"
    config.write_text(text)
    [receiver] = yaml.safe_load(text)["receivers"]
    assert receiver.keys() == {"name", f"{kind}_configs"}
    check_alertmanager(config)


def test_what_alertmanager_holds_back_are_alerts_that_exist() -> None:
    config = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())
    matchers = [
        matcher
        for rule in config["inhibit_rules"]
        for matcher in (*rule["source_matchers"], *rule["target_matchers"])
    ]
    for matcher in matchers:
        match = re.fullmatch(r'alertname =~? "?([\w|.+]+)"?', matcher)
        assert match is not None, matcher
        for name in match[1].split("|"):
            assert any(re.fullmatch(name, alert) for alert in ALERTS), name


@pytest.mark.parametrize("token", [None, "a-token"])
def test_the_files_of_scripts_monitoring_are_understood(token: str | None, tmp_path: Path) -> None:
    prometheus = Prometheus("prometheus", tmp_path, 9090)
    prometheus.configure(
        Target(address="127.0.0.1:8000", token=token),
        alertmanager="http://127.0.0.1:9093",
        every_s=15,
        external_labels={"rdservice_runbook": "https://git.example.com/runbook.md"},
    )
    check_prometheus(prometheus.config)
    assert token is None or token not in prometheus.config.read_text()
    alertmanager = Alertmanager("alertmanager", tmp_path, 9093)
    alertmanager.configure("http://127.0.0.1:9095/")
    check_alertmanager(alertmanager.config)
    [receiver] = yaml.safe_load(alertmanager.config.read_text())["receivers"]
    assert receiver["webhook_configs"] == [{"url": "http://127.0.0.1:9095/", "send_resolved": True}]


IN_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def in_milliseconds(duration: re.Match[str]) -> str:
    return f"{int(duration[0][:-1]) * IN_MS[duration[0][-1]]}ms"


@pytest.mark.parametrize("file", [RULES, MONITORING / "alertmanager.yml"], ids=["rules", "alertmanager"])
def test_shortening_changes_every_duration_and_nothing_else(file: Path) -> None:
    durations = re.compile(r"(?<![\w:])\d+[smhd]\b")
    # Comments speak of durations too.
    text = re.sub(r" *#.*", "", file.read_text())
    assert durations.search(text)
    assert shorten(text, 60.0) == durations.sub(in_milliseconds, text)


def test_shortened_rules_are_valid(tmp_path: Path) -> None:
    assert shorten("rate(x[10m]) > 5", 1.0) == "rate(x[10000ms]) > 5"
    rules = tmp_path / "rules.yml"
    rules.write_text(shorten(RULES.read_text(), 1.0))
    checked("promtool", "prometheus", "check", "rules", "--lint-fatal", str(rules))
