"""A diagnosis in the tests' process, or the script in a copy of the repository that has no settings of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rdservice.config import settings as settings_module
from rdservice.config.settings import ROOT
from rdservice.diagnosis.report.build import Report, diagnose
from rdservice.diagnosis.report.report_file import NAME
from rdservice.services import Services
from rdservice.tokens import workers
from tests.support.accounts import connect_account
from tests.support.sandbox_process import SandboxProcess

SCRIPT = Path("scripts/debug_rdstation_integration.py")


@dataclass(frozen=True)
class Run:
    """What the script did."""

    status: int
    out: str
    err: str
    file: Path
    text: str
    """What the file held when the script had ended; empty without a file."""

    @property
    def report(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.text)
        return content

    @property
    def codes(self) -> list[str]:
        return [finding["code"] for finding in self.report["verdict"]["findings"]]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as far as the script needs it, with the packages of the running Python as its .venv."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_repository(folder)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def copy_repository(folder: Path) -> None:
    shutil.copytree(ROOT / "rdservice", folder / "rdservice", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / SCRIPT, folder / SCRIPT)
    shutil.copy(ROOT / "pyproject.toml", folder)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """A process environment that has nothing but `variables` and what programs need."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables}


@pytest.fixture
def run_script(checkout: Path, tmp_path: Path) -> Callable[..., Run]:
    """Runs the script in a folder of its own."""

    def run(
        variables: Mapping[str, str],
        *arguments: str,
        python: Sequence[str] = (sys.executable,),
        repository: Path = checkout,
        folder: Path = tmp_path,
    ) -> Run:
        done = subprocess.run(
            [*python, str(repository / SCRIPT), *arguments],
            cwd=folder,
            env=environment(variables),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        file = folder / NAME
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        return Run(done.returncode, done.stdout, done.stderr, file, text)

    return run


@pytest.fixture
def diagnosed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """Makes a diagnosis in this process."""
    monkeypatch.setattr(settings_module, "ROOT", tmp_path)

    def run(
        variables: Mapping[str, str],
        account: str | None = None,
        *,
        try_refresh: bool = True,
        offline: bool = False,
    ) -> Report:
        return diagnose(variables, account=account, try_refresh=try_refresh, offline=offline)

    return run


@pytest.fixture
def live(variables: dict[str, str], sandbox: SandboxProcess) -> dict[str, str]:
    """Settings with the sandbox as RD Station."""
    return variables | {"RDSTATION_API_URL": sandbox.url}


@pytest.fixture
def working(
    connected: Services, sandbox: SandboxProcess, conn: psycopg.Connection[Any], live: dict[str, str]
) -> dict[str, str]:
    """The settings of a service in which all is well: an account is connected and a worker runs."""
    connect_account(connected, sandbox, due=False)
    workers.beat(conn, "worker-1")
    return live
