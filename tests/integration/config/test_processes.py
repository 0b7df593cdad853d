"""Processes that read the settings: what reading does not do, and how a process ends on mistakes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rdservice.config.settings import EXIT_CONFIG, ROOT

VALID = {
    "RDSTATION_CLIENT_ID": "11111111-2222-3333-4444-555555555555",
    "RDSTATION_CLIENT_SECRET": "fedcba9876543210fedcba9876543210",
    "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
    "DATABASE_URL": "postgres://user:password@db.example.com:5432/app",
    "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "TOKEN_ENCRYPTION_KEYS": "dzpPopuI4_KNx-qnj3WNpMLS2v0Vek-qyopYqciI7cE=",
}

AUDITED = """
import sys
from rdservice.config.settings import Settings
seen = []
def hook(event, _arguments):
    if event.startswith(("socket.", "subprocess.")) or event in {
        "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"
    }:
        seen.append(event)
sys.addaudithook(hook)
print(len(Settings.load().notify_urls), seen)
"""
"""Names of events: https://docs.python.org/3/library/audit_events.html."""


def test_reading_the_settings_starts_no_process_and_touches_no_network() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AUDITED],
        cwd=ROOT,
        env=VALID | {"NOTIFY_URLS": "json://hook.example.com/a slack://a/b/c", "RDSERVICE_ENV": "production"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("2 []\n", "")


@pytest.mark.parametrize("command", [["flask", "settings", "check"], ["worker"], ["flask", "release"]])
def test_a_process_with_broken_settings_ends_with_78_and_all_problems_on_stderr(
    command: list[str], tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "RDSERVICE_ENV": "production",
            "FLASK_SKIP_DOTENV": "1",
            "HOME": str(tmp_path),
            "RDSTATION_CLIENT_SECRET": "https://planted.example.com/rd/callback",
            "SECRET_KEY": "planted-short-key",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == EXIT_CONFIG == 78, ended.stderr
    for name in VALID:
        assert f"  - {name}" in ended.stderr
    assert "planted" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
