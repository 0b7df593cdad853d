"""scripts/start and the diagnosis on one machine: what stands in files, command lines and outputs."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg.conninfo
import pytest
from dotenv import dotenv_values

from tests.support.leaks.planted import Planted
from tests.support.leaks.stage import SECRETS
from tests.support.local_processes import command_line, descendants
from tests.support.processes import REPOSITORY, ServiceProcess

pytestmark = pytest.mark.slow

DIAGNOSIS = REPOSITORY / "scripts" / "debug_rdstation_integration.py"
GIVEN = {"METRICS_TOKEN": SECRETS["metrics_token"]}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def started(tmp_path: Path, data_dir: Path) -> Iterator[ServiceProcess]:
    environment = {**os.environ, **GIVEN, "RDSERVICE_DATA_DIR": str(data_dir), "PORT": "0"}
    process = ServiceProcess(["-m", "scripts.local.start_service"], environment, tmp_path / "start.log")
    try:
        process.wait_until_it_says("Ctrl-C ends everything", seconds=120)
        yield process
    finally:
        process.send(signal.SIGTERM)
        process.ended(40)


def planted_by_the_start(data_dir: Path) -> Planted:
    settings = dotenv_values(data_dir / "env", interpolate=False)
    credentials = json.loads((data_dir / "demo-credentials.json").read_text())
    planted = Planted()
    for name in ("SECRET_KEY", "TOKEN_ENCRYPTION_KEYS", "RDSTATION_CLIENT_SECRET"):
        planted.add(**{name: settings[name] or ""})
    planted.add(
        metrics_token=GIVEN["METRICS_TOKEN"],
        password=credentials["password"],
        api_key=credentials["api_key"],
        database_password=str(psycopg.conninfo.conninfo_to_dict(credentials["database_url"])["password"]),
    )
    return planted


def test_only_files_of_the_owner_and_the_ready_message_hold_secrets(
    started: ServiceProcess, data_dir: Path, tmp_path: Path
) -> None:
    planted = planted_by_the_start(data_dir)
    diagnosis = subprocess.run(
        [sys.executable, str(DIAGNOSIS)],
        cwd=tmp_path,
        env={**os.environ, **GIVEN, "RDSERVICE_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    report = tmp_path / "rdstation_debug_info.json"
    texts = {
        "the diagnosis's output": diagnosis.stdout + diagnosis.stderr,
        "the diagnosis's file": report.read_text(),
        # The ready message hands the first operator's password and key over.
        "what was said before the ready message": started.log.partition("The service is ready")[0],
        "the database's log": (data_dir / "postgres" / "server.log").read_text(errors="replace"),
    }
    for pid in {started.pid, *descendants(started.pid)}:
        texts[f"the command line of {pid}"] = command_line(pid)
    found = [f"{where}: {hit}" for where, text in texts.items() for hit in planted.found_in(text)]
    assert not found, "\n".join(found)
    said_afterwards = started.log.partition("Ctrl-C ends everything")[2]
    assert planted.found_in(said_afterwards) == []
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    assert wide_open_files_with(planted, data_dir) == []


def wide_open_files_with(planted: Planted, folder: Path) -> list[str]:
    """Return the files that hold a planted value and that others than their owner may read or write."""
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    return [
        str(file)
        for file in folder.rglob("*")
        if file.is_file()
        and stat.S_IMODE(file.stat().st_mode) & 0o077
        and planted.found_in(file.read_bytes().decode("latin-1"))
    ]


def test_the_search_of_files_finds_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    planted = Planted()
    planted.add(metrics_token=GIVEN["METRICS_TOKEN"])
    (tmp_path / "private").write_text(GIVEN["METRICS_TOKEN"])
    (tmp_path / "private").chmod(0o600)
    (tmp_path / "open").write_text(GIVEN["METRICS_TOKEN"])
    (tmp_path / "open").chmod(0o644)
    assert wide_open_files_with(planted, tmp_path) == [str(tmp_path / "open")]
