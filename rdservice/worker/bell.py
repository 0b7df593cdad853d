"""Wakes the worker's loop after a finished refresh, or to stop."""

import signal
import threading

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Bell:
    """An event that also remembers whether to stop."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def ring(self) -> None:
        self._rung.set()

    def stop(self) -> None:
        self._stop.set()
        self.ring()

    def wait_for_stop(self) -> None:
        self._stop.wait()

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as the bell has rung since the last wait."""
        if not self.stopped:
            self._rung.wait(seconds)
        self._rung.clear()


def stop_on_signal(bell: Bell) -> None:
    """Make SIGTERM and SIGINT stop the bell. Call this before you start any thread."""
    # Not a handler: Event.set() takes a lock, and can deadlock inside Event.wait().
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def listen() -> None:
        signal.sigwait(STOP_SIGNALS)
        bell.stop()

    threading.Thread(target=listen, name="signals", daemon=True).start()
