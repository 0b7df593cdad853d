"""`flask leads export`: a file that is complete, or that can be completed."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rdservice.access import audit
from rdservice.config.settings import Settings
from rdservice.services import Services
from tests.integration.cli.conftest import MakeRun, Run
from tests.support.accounts import connect_account
from tests.support.sandbox_process import SandboxProcess

LEADS = 300


@pytest.fixture
def run(
    run_with: MakeRun,
    make_services: Callable[[Settings], Services],
    variables: dict[str, str],
    sandbox: SandboxProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    monkeypatch.setattr("rdservice.leads.export.run.RETRY_PAUSES_S", (0.0,))
    sandbox.patch(rate_limit=None, leads=LEADS)
    more = {"RDSTATION_API_URL": sandbox.url, "RDSTATION_RATE_LIMIT": "100000"}
    services = make_services(Settings.from_mapping(variables | more))
    connect_account(services, sandbox, due=False)
    return run_with(services)


def test_a_file_gets_all_leads_and_is_for_its_owner_only(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "leads.ndjson"
    result = run("leads", "export", str(file))
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (0, "300 leads exported.")
    leads = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({lead["uuid"] for lead in leads}) == LEADS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_the_ending_of_the_file_chooses_the_format(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "leads.csv"
    assert run("leads", "export", str(file), "--segmentation", "Assinantes da newsletter").exit_code == 0
    assert len(file.read_bytes().splitlines()) == LEADS / 3 + 1
    other = tmp_path / "leads.txt"
    assert (
        run("leads", "export", str(other), "--format", "csv", "--full", "--segmentation", "7").exit_code == 0
    )
    assert b"cf_segmento" in other.read_bytes().splitlines()[0]


def test_standard_output_gets_nothing_but_leads(run: Run) -> None:
    result = run("leads", "export", "-", "--segmentation", "7")
    assert len([json.loads(line) for line in result.stdout.splitlines()]) == 27


@pytest.mark.parametrize("form", ["ndjson", "csv"])
@pytest.mark.parametrize("arrived", [0, 10, 9_000, 20_000])
def test_a_file_that_broke_off_anywhere_is_completed(
    run: Run, tmp_path: Path, form: str, arrived: int
) -> None:
    whole, broken = tmp_path / f"whole.{form}", tmp_path / f"broken.{form}"
    run("leads", "export", str(whole))
    Path(f"{broken}.part").write_bytes(whole.read_bytes()[:arrived])
    assert run("leads", "export", str(broken), "--resume").exit_code == 0
    assert broken.read_bytes() == whole.read_bytes()


def test_what_fails_leaves_a_part_that_is_no_file_yet(
    run: Run, tmp_path: Path, sandbox: SandboxProcess
) -> None:
    file = tmp_path / "leads.ndjson"
    # The first page, the last one, and no more.
    sandbox.patch(
        faults=[
            {"operation": "contacts_list", "kind": "status", "status": 500, "rate": 0.5},
        ]
    )
    while run("leads", "export", str(file), *(["--resume"] if any(tmp_path.iterdir()) else [])).exit_code:
        assert not file.exists()
    assert len({json.loads(line)["uuid"] for line in file.read_text().splitlines()}) == LEADS


@pytest.mark.parametrize(
    ("existing", "arguments", "says"),
    [
        ("leads.csv", (), "exists already"),
        ("leads.csv.part", (), "--resume"),
        (None, ("--resume",), "begin without --resume"),
        ("leads.csv.part", ("--resume",), "is no csv export"),
        (None, ("--account", "absent"), "No RD Station account is connected"),
        (None, ("--account", "a/b"), "account_id"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Run, tmp_path: Path, existing: str | None, arguments: tuple[str, ...], says: str
) -> None:
    if existing:
        (tmp_path / existing).write_bytes(b"a,b\r\nc,d\r\n")
    result = run("leads", "export", str(tmp_path / "leads.csv"), *arguments)
    assert result.exit_code == 1
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_a_file_with_other_columns_is_not_gone_on_with(run: Run, tmp_path: Path) -> None:
    file, part = tmp_path / "leads.csv", tmp_path / "leads.csv.part"
    run("leads", "export", str(file))
    file.rename(part)
    before = part.read_bytes()
    result = run("leads", "export", str(file), "--resume", "--full")
    assert (result.exit_code, part.read_bytes()) == (1, before)
    assert "other columns" in result.stderr


def test_the_audit_says_that_a_command_exported(run: Run, conn: psycopg.Connection[Any]) -> None:
    run("leads", "export", "-", "--segmentation", "7")
    entry = audit.newest(conn, limit=1)[0]
    assert (entry.action, entry.origin, entry.subject) == ("leads_exported", "flask leads export", "7")


def test_standard_output_cannot_be_resumed(run: Run) -> None:
    assert run("leads", "export", "-", "--resume").exit_code == 2


def test_there_is_no_export_without_database(run_without_database: Run, tmp_path: Path) -> None:
    assert run_without_database("leads", "export", str(tmp_path / "leads.csv")).exit_code == 75
    assert list(tmp_path.iterdir()) == []
