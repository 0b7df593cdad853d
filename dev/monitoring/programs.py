"""Prometheus and Alertmanager for dev/monitor and dev/drill: their files and command lines."""

import http.client
import json
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

MONITORING = Path(__file__).resolve().parents[2] / "monitoring"
RULES = MONITORING / "rules" / "rdservice.yml"
HOST = "127.0.0.1"

# Debian renames Alertmanager's program.
PROGRAMS = {
    "Prometheus": (("prometheus",), "prometheus"),
    "Alertmanager": (("prometheus-alertmanager", "alertmanager"), "prometheus-alertmanager"),
}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# The rules' windows and durations, and Alertmanager's intervals.
BEFORE = r"(?:(?<=\[)|(?<=for: )|(?<=_wait: )|(?<=_interval: ))"
DURATION = re.compile(BEFORE + r"(\d+)([smhd])(?=\]|$)", re.MULTILINE)


class ProgramMissingError(Exception):
    """A program is not installed; the message names Debian's packages."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The service to scrape. `token`: its METRICS_TOKEN, None if it has none."""

    address: str
    token: str | None = field(repr=False)


def find_programs() -> tuple[str, str]:
    """Return the paths of Prometheus and Alertmanager. Raises ProgramMissingError."""
    found = {
        name: next(filter(None, map(shutil.which, names)), None) for name, (names, _) in PROGRAMS.items()
    }
    missing = [name for name, path in found.items() if path is None]
    if missing:
        packages = " ".join(PROGRAMS[name][1] for name in missing)
        raise ProgramMissingError(
            f"{' and '.join(missing)} must be installed. On Debian, as root: apt-get install {packages}"
        )
    prometheus, alertmanager = (str(path) for path in found.values())
    return prometheus, alertmanager


def shorten(text: str, minute_s: float) -> str:
    """Return rules or an Alertmanager configuration in which a minute takes `minute_s` seconds."""

    def shorter(match: re.Match[str]) -> str:
        return f"{round(int(match[1]) * SECONDS[match[2]] * minute_s / 60 * 1000)}ms"

    return DURATION.sub(shorter, text)


class Prometheus:
    """Its files below `folder`, and how it is started."""

    def __init__(self, program: str, folder: Path, port: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.url = f"http://{HOST}:{port}"
        self.config = folder / "prometheus.yml"
        self._token = folder / "metrics-token"
        self.command = [
            program,
            f"--config.file={self.config}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address={HOST}:{port}",
            "--web.enable-lifecycle",
            "--log.level=warn",
        ]

    def configure(
        self,
        target: Target,
        *,
        alertmanager: str,
        rules: Path = RULES,
        every_s: float,
        evaluate_s: float | None = None,
        external_labels: dict[str, str] | None = None,
    ) -> None:
        """Write the configuration: scrape `target` and evaluate the rules at this interval, in seconds."""
        job: dict[str, object] = {
            "job_name": "rdservice",
            "static_configs": [{"targets": [target.address]}],
        }
        if target.token is not None:
            self._token.touch(mode=0o600)
            self._token.write_text(target.token)
            job["authorization"] = {"credentials_file": str(self._token)}
        every = f"{round(every_s * 1000)}ms"
        evaluate = every if evaluate_s is None else f"{round(evaluate_s * 1000)}ms"
        config = {
            "global": {
                "scrape_interval": every,
                "scrape_timeout": every,
                "evaluation_interval": evaluate,
                "external_labels": external_labels or {},
            },
            "rule_files": [str(rules)],
            "scrape_configs": [job],
            "alerting": {
                "alert_relabel_configs": [{"action": "labeldrop", "regex": "rdservice_runbook"}],
                "alertmanagers": [{"static_configs": [{"targets": [alertmanager.removeprefix("http://")]}]}],
            },
        }
        # YAML 1.2 contains JSON.
        self.config.write_text(json.dumps(config, indent=2) + "\n")


class Alertmanager:
    """Its files below `folder`, and how it is started."""

    def __init__(self, program: str, folder: Path, port: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.url = f"http://{HOST}:{port}"
        self.config = folder / "alertmanager.yml"
        self.command = [
            program,
            f"--config.file={self.config}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={HOST}:{port}",
            # A single instance needs no cluster port.
            "--cluster.listen-address=",
            "--log.level=warn",
        ]

    def configure(self, receiver: str, change: Callable[[str], str] = str) -> None:
        """Write monitoring/alertmanager.yml, changed by `change`, with `receiver` (a URL) as an additional receiver."""
        # The file ends with its receiver, so these lines extend it.
        webhook = f"    webhook_configs:\n      - url: {receiver}\n        send_resolved: true\n"
        self.config.write_text(change((MONITORING / "alertmanager.yml").read_text()) + webhook)


def is_ready(url: str) -> bool:
    """Return whether Prometheus or Alertmanager is ready at `url`."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.create_server((HOST, 0)) as found:
        port: int = found.getsockname()[1]
        return port
