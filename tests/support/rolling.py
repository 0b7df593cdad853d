"""A deployment that is replaced without a gap, while callers go on all the time."""

import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import requests

from tests.support.processes import Processes, ServiceProcess, Web
from tests.support.waiting import wait_until


class Deployment:
    """One web and one worker process, and callers that ask the web process for `paths` in turn, without a pause."""

    def __init__(self, processes: Processes, paths: Sequence[str], headers: Mapping[str, str]) -> None:
        self.responses: Counter[tuple[str, int]] = Counter()
        self.problems: list[str] = []
        self._processes, self._paths, self._headers = processes, paths, headers
        self._lock = threading.Lock()
        self._enough = threading.Event()
        self._url = ""
        self._asking: dict[int, str] = {}
        self._web: Web | None = None
        self._worker: ServiceProcess | None = None
        self._ended: list[ServiceProcess] = []

    @property
    def logs(self) -> str:
        """All that every process said so far."""
        running = [process for process in (self._web, self._worker) if process is not None]
        return "".join(process.log for process in [*self._ended, *running])

    def replace(self, **variables: str) -> None:
        """Start new processes with these settings, let callers go to them, then end the old ones."""
        old = [process for process in (self._web, self._worker) if process is not None]
        self._web, self._worker = self._processes.web(None, **variables), self._processes.worker(**variables)
        self._worker.wait_until_it_says("started")
        with self._lock:
            before, self._url = self._url, self._web.url
        wait_until(lambda: before not in self._asking.values(), "all callers have moved on")
        for process in old:
            process.send(signal.SIGTERM)
        for process in old:
            assert process.ended() == 0, process.log
        self._ended += old

    @contextlib.contextmanager
    def called(self, callers: int = 3) -> Iterator[None]:
        """Let that many callers ask until the end of the block."""
        threads = [threading.Thread(target=self._call, args=(number,)) for number in range(callers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._enough.set()
            for thread in threads:
                thread.join(60)

    def _call(self, number: int) -> None:
        asked = number
        while not self._enough.wait(0.05):
            with self._lock:
                url = self._asking[number] = self._url
            path = self._paths[asked % len(self._paths)]
            try:
                response = requests.get(url + path, headers=self._headers, timeout=30)
            except requests.RequestException as error:
                self.problems.append(f"{path}: {error!r}")
            else:
                self.responses[path, response.status_code] += 1
                if response.status_code != requests.codes.ok:
                    self.problems.append(f"{path}: {response.status_code} {response.text}")
            self._asking.pop(number)
            asked += 1
