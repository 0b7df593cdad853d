"""The service's real processes: web (gunicorn), worker and commands, with everything they say in a file."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import requests

from scripts.local.child_process import kill_session, run, spawn
from tests.support.local_processes import descendants
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


class ServiceProcess:
    """A running process of the service. It is killed when the tests end, however they end."""

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        log: Path,
        *,
        stdin: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = spawn(
                [sys.executable, *command],
                death_signal=signal.SIGKILL,
                env=variables,
                stdin=stdin,
                stdout=output,
                stderr=output,
                pass_fds=pass_fds,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """All that it wrote so far."""
        return self._log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self, seconds: float = 30.0) -> int:
        """Wait until it ends; return its exit status."""
        return self._process.wait(seconds)

    def kill(self) -> None:
        """End it and all that it started at once, as kill -9 does. Safe when it has ended."""
        kill_session(self._process)
        self._process.wait()

    def wait_until_it_says(self, words: str, *, seconds: float = 40.0) -> None:
        """Wait until `words` are in its log."""
        wait_until(lambda: words in self.log, f"the process says {words!r}", seconds=seconds)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Hold the process as SIGSTOP does; it goes on at the end."""
        with stopped(self.pid):
            yield

    def cpu_seconds(self) -> float:
        """Processor time that it has used (proc(5), fields utime and stime)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Web(ServiceProcess):
    """gunicorn with its workers, at `url`."""

    def __init__(self, listening: socket.socket, variables: Mapping[str, str], log: Path) -> None:
        self.port: int = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = ["-m", "gunicorn", "--config", str(REPOSITORY / "gunicorn.conf.py")]
        command += ["--bind", f"fd://{listening.fileno()}", "wsgi:app"]
        super().__init__(command, variables, log, pass_fds=[listening.fileno()])

    @property
    def workers(self) -> set[int]:
        """The process ids of gunicorn's workers."""
        return descendants(self.pid)

    def wait_until_ready(self) -> None:
        wait_until(self._answers, f"the web processes answer; they said:\n{self.log}", seconds=40)

    def _answers(self) -> bool:
        assert self.runs, f"gunicorn ended:\n{self.log}"
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/healthz", timeout=20).status_code == 200
        return False

    @contextlib.contextmanager
    def sessions_of_each_worker(self) -> Iterator[list[requests.Session]]:
        """One client for each worker, whose kept connection leads to that worker and no other."""
        with contextlib.ExitStack() as open_sessions:
            sessions = []
            for chosen in sorted(self.workers):
                with contextlib.ExitStack() as held:
                    for other in self.workers - {chosen}:
                        held.enter_context(stopped(other))
                    session = open_sessions.enter_context(requests.Session())
                    session.get(f"{self.url}/healthz", timeout=20).raise_for_status()
                    sessions.append(session)
            yield sessions


class Processes:
    """Starts processes with the same settings and ends them all with `close`."""

    def __init__(self, variables: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._started: list[ServiceProcess] = []
        self.variables = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "WEB_CONCURRENCY": "2",
            # An empty folder: no settings of a service that the developer runs.
            "RDSERVICE_DATA_DIR": str(folder),
            **variables,
        }

    def close(self) -> None:
        """Kill what still runs, stopped processes included; pytest shows what they said where a test has failed."""
        for process in self._started:
            process.kill()
            print(f"--- process {process.pid}\n{process.log}")

    def web(self, listening: socket.socket | None = None, **variables: str) -> Web:
        """Start gunicorn on a free port, or on the socket `listening`, and wait until it answers."""
        with listening or listening_socket() as bound:
            web = Web(bound, self.variables | variables, self._new_log("web"))
        self._started.append(web)
        web.wait_until_ready()
        return web

    def worker(self, **variables: str) -> ServiceProcess:
        """Start `python -m worker`."""
        return self._start("worker", ["-m", "worker"], variables, subprocess.DEVNULL)

    def python(self, *command: str, stdin: int = subprocess.DEVNULL) -> ServiceProcess:
        """Start another Python program."""
        return self._start("python", command, {}, stdin)

    def flask(self, *command: str, text: str | None = None, **variables: str) -> str:
        """Run `flask …` with `text` on its standard input; return what it prints. Fails when the command does."""
        done = run(
            [sys.executable, "-m", "flask", "--app", "wsgi", *command],
            env=self.variables | variables,
            text=text,
        )
        output = done.stdout.decode()
        assert done.returncode == 0, output
        return output

    def _start(
        self, name: str, command: Sequence[str], variables: Mapping[str, str], stdin: int
    ) -> ServiceProcess:
        started = ServiceProcess(command, {**self.variables, **variables}, self._new_log(name), stdin=stdin)
        self._started.append(started)
        return started

    def _new_log(self, name: str) -> Path:
        return self._folder / f"{name}-{len(self._started)}.log"


def listening_socket() -> socket.socket:
    """Return a socket on a free port of 127.0.0.1; gunicorn takes it over, so that nobody can get in between."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    return listening


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hold the process `pid`, in all its threads, until the end of the block."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) == "T", f"process {pid} stands still")
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def state_of(pid: int) -> str:
    """Return the state letter of proc(5): R and S run, T is stopped, Z has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
