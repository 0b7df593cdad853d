"""scripts/start, or another program beside it, as a user starts it from a shell."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.support.local_processes import command_line, descendants, wait_until_gone

ROOT = Path(__file__).resolve().parents[2]
# The very first start of a checkout installs packages.
READY_SECONDS = 150


class Start:
    """One run of scripts/start, or of another `program` of the repository.

    Its output goes into a file, so that nobody has to read it for it to go on.
    """

    def __init__(
        self, data_dir: Path, output: Path, *, program: str = "scripts/start", **environment: str
    ) -> None:
        self.data_dir = data_dir
        self._output = output
        with output.open("wb") as out:
            self.process = subprocess.Popen(
                [ROOT / program],
                env=os.environ | {"RDSERVICE_DATA_DIR": str(data_dir), "LC_ALL": "C.UTF-8"} | environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def credentials(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.data_dir / "demo-credentials.json").read_text())
        return found

    def wait_for(self, text: str, seconds: float = READY_SECONDS) -> "Start":
        give_up = time.monotonic() + seconds
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < give_up, self.output
            time.sleep(0.05)
        return self

    def wait_until_ready(self) -> "Start":
        return self.wait_for("Ctrl-C ends everything")

    def child(self, words: str) -> int:
        """The process id of the child whose command line contains `words`."""
        [pid] = [pid for pid in self.children() if words in command_line(pid)]
        return pid

    def children(self) -> set[int]:
        """Direct children: the services, without what those start themselves."""
        below = descendants(self.process.pid)
        return below - {grandchild for pid in below for grandchild in descendants(pid)}

    def end(self, number: signal.Signals) -> int:
        """Send a signal; check that nothing is left; return the exit status."""
        everything = descendants(self.process.pid)
        self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        # A killed process ends nothing itself: the kernel has told its children.
        assert wait_until_gone(everything, seconds=10 if number == signal.SIGKILL else 1) == set()
        return status
