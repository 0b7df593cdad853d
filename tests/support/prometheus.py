"""A real Prometheus for a test."""

import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest
import requests

from dev.monitoring.programs import free_port
from scripts.local.child_process import spawn
from tests.support.waiting import wait_until

COUNTERS = ("_total", "_bucket", "_count", "_sum")


class PrometheusServer:
    """Debian's Prometheus with the configuration `config`; skips the test where it is missing.

    As an `agent` it scrapes and forwards and answers no queries. Further command line `options` may follow, which may
    let nobody in but the user and password `auth`.
    """

    def __init__(
        self,
        folder: Path,
        config: Path,
        *,
        agent: bool = False,
        options: Sequence[str] = (),
        auth: tuple[str, str] | None = None,
    ) -> None:
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("prometheus is not installed (Debian: prometheus)")
        self._auth = auth
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "prometheus.log"
        where = ["--enable-feature=agent", "--storage.agent.path"] if agent else ["--storage.tsdb.path"]
        where[-1] += f"={folder / 'data'}"
        command = [program, f"--config.file={config}", *where, f"--web.listen-address={self.address}"]
        with self._log.open("ab") as log:
            self._process = spawn(
                [*command, "--log.level=warn", *options],
                death_signal=signal.SIGKILL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def __enter__(self) -> Self:
        wait_until(self._is_ready, f"Prometheus answers; its log is {self._log}", seconds=60)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def log(self) -> str:
        """All that it said so far, from warnings on."""
        return self._log.read_text(errors="replace")

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, f"Prometheus ended:\n{self.log}"
        with contextlib.suppress(requests.ConnectionError):
            return self._get("/-/ready").status_code == 200
        return False

    def _get(self, path: str, **parameters: str) -> requests.Response:
        return requests.get(self.url + path, parameters, auth=self._auth, timeout=10)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples that the expression gives now."""
        response = self._get("/api/v1/query", query=expression)
        assert response.status_code == 200, response.text
        found: list[dict[str, Any]] = response.json()["data"]["result"]
        return found

    def values(self, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the samples of the expression by the values of `labels`."""
        return {
            tuple(sample["metric"].get(label, "") for label in labels): float(sample["value"][1])
            for sample in self.query(expression)
        }

    def resets(self) -> dict[str, float]:
        """Return `resets()` of each counter and histogram of the past hour, the largest of its children; {} is none."""
        response = self._get("/api/v1/label/__name__/values")
        names = [name for name in response.json()["data"] if name.endswith(COUNTERS)]
        assert names
        return {name: self.values(f"max(resets({name}[1h]))")[()] for name in names}


def write_config(file: Path, target: str, *, token: str, every_s: int = 1) -> Path:
    """Write a configuration that scrapes one target, each time within the interval; return `file`."""
    job = {
        "job_name": "rdservice",
        "static_configs": [{"targets": [target]}],
        "authorization": {"credentials": token},
    }
    config = {
        "global": {"scrape_interval": f"{every_s}s", "scrape_timeout": f"{every_s}s"},
        "scrape_configs": [job],
    }
    # YAML 1.2 contains JSON.
    file.write_text(json.dumps(config))
    return file
