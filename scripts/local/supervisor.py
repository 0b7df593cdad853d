"""Runs several programs: one output, restarts, and an orderly end."""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Full, Queue
from threading import Thread

from rdservice.text.terminal import tell
from scripts.local.child_process import STOP_SIGNALS, kill_session, spawn

TURN_SECONDS = 0.2
LONGEST_LINE = 65_536  # bytes
# A child that ran this long was healthy, so its next restart is immediate.
STEADY_SECONDS = 60.0
LONGEST_DELAY_SECONDS = 30.0


class ChildEndedError(Exception):
    """A child ended during the start."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(
            tell("%(program)s %(what)s; its output is above", program=name, what=describe(status))
        )
        self.status = status


class Printer:
    """Writes lines to standard output in a separate thread.

    So the service does not wait for a paused terminal, or for a pipe that nothing reads: lines that cannot be
    written are dropped.
    """

    def __init__(self) -> None:
        self._lines: Queue[str | None] = Queue(maxsize=10_000)
        self._thread = Thread(target=self._write, daemon=True, name="printer")
        # Signals must interrupt the main thread, whose handlers they call.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def say(self, text: str) -> None:
        try:
            self._lines.put_nowait(text)
        except Full:
            return

    def close(self) -> None:
        """Write the rest, for at most two seconds."""
        try:
            self._lines.put(None, timeout=1)
        except Full:
            return
        self._thread.join(timeout=2)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            data = (line + "\n").encode(errors="replace")
            try:
                while data:
                    data = data[os.write(sys.stdout.fileno(), data) :]
            except OSError:
                continue


@dataclass
class Child:
    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    pass_fds: Sequence[int]
    on_line: Callable[[str], None] | None
    process: subprocess.Popen[bytes] = field(init=False)
    started_at: float = field(init=False)
    unfinished_line: bytes = b""
    short_lives: int = 0
    restart_at: float | None = None


class Supervisor:
    """Starts children and supervises them in `turn`, which the owner calls in a loop."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self.restarts_children = False
        """Whether a child that ends is started again; until then its end raises ChildEndedError in `turn`."""

    def start(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        pass_fds: Sequence[int] = (),
        on_line: Callable[[str], None] | None = None,
    ) -> Child:
        """Start a child. Its output lines are printed behind its name, and given to `on_line`.

        Its `command`, where it is changed later, is that of the next restart.
        """
        child = Child(name, command, env, pass_fds, on_line)
        self._launch(child)
        self._children.append(child)
        return child

    def turn(self, seconds: float = TURN_SECONDS) -> None:
        """Print the children's output for up to `seconds`; then restart those that ended."""
        for key, _ in self._selector.select(seconds):
            self._read(key.data)
        for child in self._children:
            if child.restart_at is not None:
                if time.monotonic() >= child.restart_at:
                    self._launch(child)
            elif child.process.poll() is not None:
                self._bury(child)
                if not self.restarts_children:
                    raise ChildEndedError(child.name, child.process.returncode)
                self._plan_restart(child)

    def stop(self, *names: str, seconds: float) -> None:
        """Stop these children with SIGTERM, after `seconds` with SIGKILL. Names without a child are ignored."""
        ending = [child for child in self._children if child.name in names]
        self._children = [child for child in self._children if child not in ending]
        ending = [child for child in ending if child.restart_at is None]
        for child in ending:
            child.process.terminate()
        give_up = time.monotonic() + seconds
        while any(child.process.poll() is None for child in ending) and time.monotonic() < give_up:
            for key, _ in self._selector.select(0.02):
                self._read(key.data)
        for child in ending:
            if child.process.poll() is None:
                values = {"program": child.name, "seconds": f"{seconds:.0f}"}
                self._printer.say(
                    tell("%(program)s did not end within %(seconds)s s and was killed", **values)
                )
            kill_session(child.process)
            child.process.wait()
            self._bury(child)

    def _launch(self, child: Child) -> None:
        child.process = spawn(
            child.command,
            death_signal=signal.SIGKILL,
            env=child.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=child.pass_fds,
        )
        child.started_at = time.monotonic()
        child.restart_at = None
        assert child.process.stdout is not None  # noqa: S101 - it is a pipe
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _plan_restart(self, child: Child) -> None:
        lived = time.monotonic() - child.started_at
        child.short_lives = 0 if lived > STEADY_SECONDS else child.short_lives + 1
        delay = min(2.0**child.short_lives / 2, LONGEST_DELAY_SECONDS)
        child.restart_at = time.monotonic() + delay
        end = describe(child.process.returncode)
        values = {"program": child.name, "what": end, "seconds": f"{delay:g}"}
        self._printer.say(tell("%(program)s %(what)s; it is started again in %(seconds)s s", **values))

    def _read(self, child: Child) -> bool:
        """Print what has arrived; False when there is nothing."""
        assert child.process.stdout is not None  # noqa: S101
        try:
            data = os.read(child.process.stdout.fileno(), LONGEST_LINE)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(child.process.stdout)
            return False
        *lines, rest = (child.unfinished_line + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        child.unfinished_line = rest
        for line in lines:
            self._show(child, line)
        return True

    def _show(self, child: Child, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._printer.say(f"{child.name:<8}| {text}")
        if child.on_line is not None:
            child.on_line(text)

    def _bury(self, child: Child) -> None:
        """Clean up after a child: kill what it left behind, and print its last lines."""
        kill_session(child.process)
        stdout = child.process.stdout
        assert stdout is not None  # noqa: S101
        while stdout in self._watched() and self._read(child):
            pass
        if child.unfinished_line:
            self._show(child, child.unfinished_line)
            child.unfinished_line = b""
        if stdout in self._watched():
            self._selector.unregister(stdout)
        stdout.close()

    def _watched(self) -> list[object]:
        return [key.fileobj for key in self._selector.get_map().values()]


def describe(status: int) -> str:
    """A process's exit status, as subprocess gives it, in words."""
    if status < 0:
        return tell("was ended by %(signal)s", signal=signal.Signals(-status).name)
    return tell("ended with status %(status)s", status=status)
