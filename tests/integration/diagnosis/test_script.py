"""`python scripts/debug_rdstation_integration.py` as a program: how it starts and ends, and what it leaves behind."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rdservice.services import Services
from rdservice.tokens import store
from tests.conftest import CLIENT_SECRET
from tests.integration.diagnosis.conftest import SCRIPT, Run, copy_repository, environment
from tests.support.accounts import attempts_of, stored_pair
from tests.support.odd_server import odd_server, respond_with, say_nothing
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]
RunScript = Callable[..., Run]

BASE_PYTHON = Path(sys.base_prefix) / "bin" / "python3"
NO_PACKAGES = (str(BASE_PYTHON), "-S")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_system_s_python_in_any_folder_will_do(
    run_script: RunScript, working: dict[str, str], tmp_path: Path
) -> None:
    done = run_script(working, python=NO_PACKAGES)
    assert (done.status, done.err) == (0, "")
    assert done.out == f"All is well.\n\nWritten: {tmp_path / 'rdstation_debug_info.json'}\n"
    assert list(tmp_path.iterdir()) == [done.file]
    assert mode(done.file) == 0o600
    assert done.codes == []
    assert done.report["leads_call"]["http_status"] == 200
    assert list(done.report) == [
        "generated_at",
        "verdict",
        "versions",
        "settings",
        "database",
        "accounts",
        "recent_attempts",
        "worker",
        "network",
        "clocks",
        "consent_dialog",
        "refresh_attempt",
        "leads_call",
    ]


def test_what_needs_a_person_ends_with_1_and_in_the_reader_s_language(
    run_script: RunScript, working: dict[str, str], conn: Conn
) -> None:
    conn.execute("DELETE FROM rdstation_workers")
    done = run_script(working | {"LANG": "pt_BR.UTF-8"}, "--no-refresh")
    assert done.status == 1
    assert done.codes == ["worker_not_running"]
    assert "ERRO  O worker não está rodando" in done.out
    assert "O que fazer: Inicie-o" in done.out
    (finding,) = done.report["verdict"]["findings"]
    assert finding["severity"] == "error"
    assert finding["seen"]["en"].startswith("The worker is not running")
    assert finding["todo"]["pt-BR"].startswith("Inicie-o")


def test_warnings_alone_need_no_person(
    run_script: RunScript, working: dict[str, str], sandbox: SandboxProcess
) -> None:
    sandbox.patch(faults=[{"operation": "segmentations_list", "kind": "status", "status": 429}])
    done = run_script(working)
    assert (done.status, done.codes) == (0, ["rate_limited"])
    assert "WARNING" in done.out


def test_without_any_setting_it_says_which_are_missing(run_script: RunScript) -> None:
    done = run_script({}, "--offline")
    assert done.status == 1
    assert set(done.codes) == {"settings_broken"}
    assert "TOKEN_ENCRYPTION_KEYS" in done.out


def test_nothing_secret_and_nobody_s_data_is_in_file_or_output(
    run_script: RunScript,
    working: dict[str, str],
    services: Services,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
) -> None:
    account = "ana.souza@example.com"
    with conn.transaction():
        pair = sandbox.pair("account-2")
        store.authorize(
            conn,
            connected.keys,
            account,
            access_token=pair["access_token"],
            refresh_token=pair["refresh_token"],
            expires_in_s=86_400,
            name="Padaria da Ana Souza Ltda",
            verified=True,
            proven=True,
        )
    conn.execute("UPDATE rdstation_tokens SET last_error = 'timeout', status = 'unverified'")
    lead = {
        "email": "joao.pereira@example.org",
        "personal_phone": "+55 48 99999-1234",
        "name": "João Pereira",
    }
    body = json.dumps(
        {"errors": {"error_type": "FORBIDDEN", "error_message": "jwt eyJhbGciOi.eyJleHAi.c2ln"}, **lead}
    )
    response = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode()
    password = str(psycopg.conninfo.conninfo_to_dict(working["DATABASE_URL"])["password"])
    assert len(password) > 8
    secrets = [
        *stored_pair(services, conn),
        pair["access_token"],
        pair["refresh_token"],
        CLIENT_SECRET,
        working["SECRET_KEY"],
        working["TOKEN_ENCRYPTION_KEYS"],
        password,
        "the-metrics-token",
        account,
        "ana.souza",
        "Padaria",
        *lead.values(),
        "eyJhbGciOi",
    ]
    settings = working | {"METRICS_TOKEN": "the-metrics-token"}
    with odd_server(respond_with(response)) as rdstation:
        told = [run_script(settings | {"RDSTATION_API_URL": rdstation.url}, "--account", account)]
    told.append(run_script(settings, "--account", "maria.lima@example.net"))
    told.append(run_script(settings | {"RDSTATION_REDIRECT_URI": CLIENT_SECRET}))
    assert [run.status for run in told] == [1, 1, 1]
    assert {"forbidden_by_gateway", "plan_without_api"} <= set(told[0].codes)
    for run in told:
        everything = run.text + run.out + run.err
        shown = [secret for secret in [*secrets, "maria.lima"] if secret in everything]
        assert shown == []


def test_the_file_replaces_a_symbolic_link_and_leaves_its_target_alone(
    run_script: RunScript, tmp_path: Path
) -> None:
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    (tmp_path / "rdstation_debug_info.json").symlink_to(target)
    done = run_script({}, "--offline")
    assert target.read_text() == "precious"
    assert not done.file.is_symlink()
    assert mode(done.file) == 0o600
    assert done.codes


def test_an_older_file_that_others_could_read_is_replaced(run_script: RunScript, tmp_path: Path) -> None:
    old = tmp_path / "rdstation_debug_info.json"
    old.write_text("old")
    old.chmod(0o666)
    with old.open() as held:
        done = run_script({}, "--offline")
        assert held.read() == "old"
    assert mode(done.file) == 0o600
    assert done.codes


def test_a_folder_that_cannot_be_written_ends_with_2_before_anything_is_tried(
    run_script: RunScript, working: dict[str, str], conn: Conn, tmp_path: Path
) -> None:
    (tmp_path / "rdstation_debug_info.json").mkdir()
    done = run_script(working)
    assert done.status == 2
    assert "is a folder" in done.err
    # Nobody can make a file there, root included.
    elsewhere = run_script(working, folder=Path("/proc"))
    assert elsewhere.status == 2
    assert "cannot be written" in elsewhere.err
    assert attempts_of(conn) == []


def test_unknown_arguments_end_with_2(run_script: RunScript) -> None:
    assert run_script({}, "--acount", "x").status == 2


def test_without_packages_it_says_what_to_run(run_script: RunScript, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    copy_repository(repository)
    for_nothing = run_script({}, "--offline", python=NO_PACKAGES, repository=repository)
    assert for_nothing.status == 2
    assert "scripts/start" in for_nothing.err
    assert not for_nothing.file.exists()
    # A .venv whose Python is not that of a virtual environment must not be tried for ever.
    (repository / ".venv" / "bin").mkdir(parents=True)
    (repository / ".venv" / "bin" / "python").symlink_to(BASE_PYTHON)
    broken = run_script({}, "--offline", python=NO_PACKAGES, repository=repository)
    assert broken.status == 2
    assert "scripts/start" in broken.err


def test_a_deployment_without_venv_goes_on_with_the_python_that_was_called(
    run_script: RunScript, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    copy_repository(repository)
    done = run_script({}, "--offline", repository=repository)
    assert done.status == 1
    assert set(done.codes) == {"settings_broken"}


def test_settings_come_from_the_repository_s_files_wherever_it_is_called(
    run_script: RunScript, working: dict[str, str], tmp_path: Path
) -> None:
    repository, folder = tmp_path / "repository", tmp_path / "folder"
    for made in (repository, folder):
        made.mkdir()
    copy_repository(repository)
    (repository / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in working.items()))
    done = run_script({}, repository=repository, folder=folder)
    assert (done.status, done.codes) == (0, [])


def test_an_interrupted_diagnosis_leaves_nothing_behind(
    checkout: Path, working: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with odd_server(say_nothing) as silent:
        process = subprocess.Popen(
            [sys.executable, str(checkout / SCRIPT), "--no-refresh"],
            cwd=folder,
            env=environment(working | {"RDSTATION_API_URL": silent.url}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: silent.received, "RD Station is being called")
        assert [path.name.startswith(".rdstation_debug_info.json-") for path in folder.iterdir()] == [True]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (2, "", "Interrupted; nothing was written.\n")
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_it_ends_in_time_whoever_never_answers(
    run_script: RunScript, checkout: Path, working: dict[str, str], tmp_path: Path, conn: Conn
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with odd_server(say_nothing) as silent, socket.create_server(("127.0.0.1", 0)) as deaf:
        waiting_for_rd_station = subprocess.Popen(
            [sys.executable, str(checkout / SCRIPT)],
            cwd=folder,
            env=environment(working | {"RDSTATION_API_URL": silent.url}),
            stdout=subprocess.DEVNULL,
        )
        database_url = f"postgres://127.0.0.1:{deaf.getsockname()[1]}/app"
        waiting_for_database = run_script(working | {"DATABASE_URL": database_url})
        # About 26 s with the deadlines of calls and exchanges as they are.
        assert waiting_for_rd_station.wait(timeout=60) == 1
    assert (waiting_for_database.status, waiting_for_database.codes) == (1, ["database_unreachable"])
    report = json.loads((folder / "rdstation_debug_info.json").read_text())
    assert report["verdict"]["findings"][0]["code"] == "rdstation_unreachable"
    assert report["refresh_attempt"]["error"] == "timeout"
    assert report["leads_call"]["error"] == "timeout"
    assert attempts_of(conn) == [("transient", "timeout")]


def test_a_reader_who_leaves_does_not_change_the_result(checkout: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, str(checkout / SCRIPT), "--offline"],
            cwd=tmp_path,
            env=environment({}),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
    assert (tmp_path / "rdstation_debug_info.json").exists()


def test_standard_output_takes_the_file_and_standard_error_the_findings(
    run_script: RunScript, working: dict[str, str], conn: Conn, tmp_path: Path
) -> None:
    conn.execute("DELETE FROM rdstation_workers")
    done = run_script(working, "--output", "-", "--offline")
    assert done.status == 1
    assert json.loads(done.out)["verdict"]["root_cause"] == "worker_not_running"
    assert done.err.startswith("ROOT CAUSE, ERROR  The worker is not running")
    assert list(tmp_path.iterdir()) == []


def test_the_place_of_the_file_can_be_chosen(
    run_script: RunScript, working: dict[str, str], tmp_path: Path
) -> None:
    chosen = tmp_path / "for-the-support.json"
    done = run_script(working, "--output", "for-the-support.json", "--offline")
    assert done.status == 0
    assert done.out.endswith(f"Written: {chosen}\n")
    assert mode(chosen) == 0o600
    assert list(tmp_path.iterdir()) == [chosen]
    nowhere = run_script(working, "--output", str(tmp_path / "missing" / "file.json"), "--offline")
    assert nowhere.status == 2
    assert "--output" in nowhere.err


@pytest.mark.parametrize(
    ("terminal", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_colours_unless_it_wants_none(
    checkout: Path, working: dict[str, str], tmp_path: Path, terminal: dict[str, str], coloured: bool
) -> None:
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, str(checkout / SCRIPT), "--offline"],
            cwd=tmp_path,
            env=environment(working | terminal),
            stdout=theirs,
            timeout=60,
            check=False,
        )
        said = os.read(ours, 4096).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == 0
    assert "All is well." in said
    assert ("\033[" in said) == coloured


def test_the_cause_comes_first_and_what_it_explains_is_listed_below_it(
    run_script: RunScript, working: dict[str, str], conn: Conn
) -> None:
    conn.execute("DELETE FROM rdstation_workers")
    conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now() - interval '5 minutes'")
    done = run_script(working, "--offline")
    lines = done.out.splitlines()
    assert lines[0].startswith("ROOT CAUSE, ERROR  The worker is not running")
    assert lines[0].endswith("[worker_not_running]")
    assert lines[3] == "  Who: the administrator of this service"
    assert lines[4] == "  It explains:"
    assert lines[5].startswith("    - The access token of account default expired")
    assert "docs/en/operate/leads-stopped.md" in done.out
    assert "\033[" not in done.out


def test_many_findings_are_cut_short_on_the_terminal_and_whole_in_the_file(
    run_script: RunScript, working: dict[str, str], conn: Conn
) -> None:
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, status) "
        "SELECT 'a' || n, access_token, refresh_token, expires_at, 'reauthorization_required' "
        "FROM rdstation_tokens, generate_series(1, 60) AS n"
    )
    done = run_script(working, "--offline")
    # A value copied from another row is a damaged one.
    assert len(done.codes) == 120
    assert done.out.count("[value_damaged]") == 20
    assert "and 100 more" in done.out
