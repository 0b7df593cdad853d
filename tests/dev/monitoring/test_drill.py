"""The drill: every alert has a scenario, and the quickest are played against real processes."""

import json
import shutil
import subprocess
import sys

import pytest

from dev.alert_drill.scenarios import SCENARIOS
from dev.alert_drill.watch import RUNBOOK
from tests.support.rule_files import ALERTS, ROOT

QUICK = ["RDStationServerErrorsHigh", "RDServiceErrorBudgetBurnsFast", "RDStationReauthorizationRequired"]


def test_every_alert_is_in_the_drill_once() -> None:
    drilled = [alert for scenario in SCENARIOS for alert in scenario.alerts]
    assert sorted(drilled) == sorted(ALERTS)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_alerts_fire_arrive_with_their_runbook_and_resolve_against_real_processes() -> None:
    for name, package in (
        ("prometheus", "prometheus"),
        ("prometheus-alertmanager", "prometheus-alertmanager"),
    ):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed (Debian: {package})")
    command = [sys.executable, "-m", "dev.alert_drill", "--json", "--minute", "1.5", *QUICK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = {one["alert"]: one for one in json.loads(done.stdout)}
    assert seen.keys() == set(QUICK)
    for alert, one in seen.items():
        assert one["problem"] is None
        assert one["runbook_url"] == f"{RUNBOOK}#{alert.lower()}"
        assert one["fired_after_s"] > 0
        assert one["resolved_after_s"] > 0
