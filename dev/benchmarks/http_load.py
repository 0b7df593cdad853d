"""Generates load on one URL in a separate process: with wrk if it is installed, else with `http_client`."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dev.benchmarks.stage import ROOT, BenchError
from scripts.local.child_process import run

CONNECTIONS = 16

# In a file, because a command line shows the API key to everyone on the machine.
WRK_SCRIPT = """
done = function(summary)
    local errors = summary.errors
    io.write(string.format('\\nRESULT {"requests": %d, "seconds": %f, "errors": %d}\\n', summary.requests,
        summary.duration / 1e6, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True)
class Counted:
    """Number of responses, and the time they took."""

    requests: int
    seconds: float


class LoadMaker:
    """Generates load; writes its files into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wrk = shutil.which("wrk")

    @property
    def name(self) -> str:
        if self._wrk is None:
            return "own (install wrk for steadier figures)"
        first_line = run([self._wrk, "-v"]).stdout.decode(errors="replace").partition("\n")[0]
        version = re.search(r"[0-9][\w.+-]*", first_line)
        return f"wrk {version[0]}" if version else "wrk"

    def make(self, url: str, headers: Mapping[str, str], *, seconds: int) -> Counted:
        """Send GET requests for `seconds`. Raises BenchError unless all of them succeed."""
        command, text = self._command(url, headers, seconds)
        done = run(command, text=text, stderr=subprocess.PIPE)
        result = re.search(r'\{"requests".*\}', done.stdout.decode(errors="replace"))
        if done.returncode != 0 or result is None:
            raise BenchError(f"the load maker failed: {(done.stdout + done.stderr).decode(errors='replace')}")
        counted = json.loads(result[0])
        if counted["errors"] or not counted["requests"]:
            raise BenchError(
                f"{counted['errors']} of {counted['requests']} requests failed under load on {url}"
            )
        return Counted(counted["requests"], counted["seconds"])

    def _command(self, url: str, headers: Mapping[str, str], seconds: int) -> tuple[list[str], str | None]:
        """The program to run, and its standard input."""
        if self._wrk is None:
            asked = {"url": url, "headers": dict(headers), "connections": CONNECTIONS, "seconds": seconds}
            client = ROOT / "dev" / "benchmarks" / "http_client.py"
            return [sys.executable, str(client)], json.dumps(asked)
        script = self._folder / "wrk.lua"
        set_headers = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(headers[name])}" for name in headers]
        script.touch(mode=0o600)
        script.write_text("\n".join(set_headers) + WRK_SCRIPT)
        options = ["--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s"]
        return [self._wrk, *options, "--timeout", "10s", "--script", str(script), url], None
