"""dev/monitor as a user meets it: real processes beside a running scripts/start."""

import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.local_processes import command_line
from tests.support.local_start import READY_SECONDS, Start
from tests.support.waiting import wait_until

SECONDS = 60.0
TOKEN = "0" * 32

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def monitoring(tmp_path: Path, **environment: str) -> Start:
    return Start(tmp_path / "data", tmp_path / "output", program="dev/monitor", **environment)


def address(run: Start, program: str) -> str:
    """Where the child whose command line has this word listens."""
    [listening] = re.findall(r"--web.listen-address=(\S+)", command_line(run.child(program)))
    return f"http://{listening}"


@pytest.fixture
def programs() -> None:
    for name, package in (
        ("prometheus", "prometheus"),
        ("prometheus-alertmanager", "prometheus-alertmanager"),
    ):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed (Debian: {package})")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Start]:
    """A running scripts/start that asks for a token on /metrics."""
    run = Start(tmp_path / "data", tmp_path / "start-output", PORT="0", METRICS_TOKEN=TOKEN)
    try:
        yield run.wait_until_ready()
    finally:
        run.process.terminate()
        run.process.wait(timeout=30)


@pytest.mark.usefixtures("programs")
def test_it_watches_the_service_shows_alerts_and_ends_all_of_it(service: Start, tmp_path: Path) -> None:
    run = monitoring(tmp_path, METRICS_TOKEN=TOKEN, PROMETHEUS_PORT="0", ALERTMANAGER_PORT="0")
    try:
        run.wait_for("Ctrl-C ends both")
        prometheus, alertmanager = address(run, "/prometheus.yml"), address(run, "/alertmanager.yml")
        assert {f"{prometheus}/alerts", alertmanager} <= set(run.output.split())

        def metrics() -> list[object]:
            response = requests.get(
                f"{prometheus}/api/v1/query", {"query": "rdstation_database_up"}, timeout=10
            )
            found: list[object] = response.json()["data"]["result"]
            return found

        wait_until(metrics, "Prometheus has read the metrics", seconds=SECONDS)
        alert = {
            "labels": {"alertname": "RDStationTokenExpired", "job": "rdservice", "severity": "critical"},
            "annotations": {"summary": "A token", "description": "It has expired", "runbook_url": "docs/x#y"},
        }
        requests.post(f"{alertmanager}/api/v2/alerts", json=[alert], timeout=10).raise_for_status()
        run.wait_for("docs/x#y", seconds=SECONDS)
        assert "FIRING   critical RDStationTokenExpired: A token" in run.output
        kept = service.data_dir / "monitoring"
        assert {"prometheus", "prometheus.yml", "alertmanager.yml"} <= {path.name for path in kept.iterdir()}
        assert (kept.stat().st_mode & 0o777, (kept / "metrics-token").stat().st_mode & 0o777) == (
            0o700,
            0o600,
        )
        assert run.end(signal.SIGINT) == 0
    finally:
        run.process.kill()
        run.process.wait()


def ended(tmp_path: Path, **environment: str) -> str:
    """Run it until it ends by itself with status 69; return what it said."""
    run = monitoring(tmp_path, **environment)
    assert run.process.wait(timeout=READY_SECONDS) == 69, run.output
    return run.output


@pytest.mark.usefixtures("programs")
def test_without_a_service_it_says_how_to_start_one(tmp_path: Path) -> None:
    assert "scripts/start" in ended(tmp_path)


@pytest.mark.usefixtures("programs")
def test_a_port_that_is_no_port_or_is_taken_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lock").write_text("http://127.0.0.1:9 (process 1)\n")
    assert "PROMETHEUS_PORT must be a number" in ended(tmp_path, PROMETHEUS_PORT="none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = ended(tmp_path, PROMETHEUS_PORT="0", ALERTMANAGER_PORT=str(port))
    assert f"port {port} is taken" in said
    assert f"ALERTMANAGER_PORT={port + 100} dev/monitor" in said


def test_missing_programs_are_named_with_their_debian_packages(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "dirname", "python3"):
        path = shutil.which(name)
        assert path is not None
        (programs / name).symlink_to(path)
    assert "apt-get install prometheus prometheus-alertmanager" in ended(tmp_path, PATH=str(programs))
