"""Start a child process that cannot outlive the process that started it. Standard library only."""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True)


def spawn(
    command: Sequence[str],
    *,
    death_signal: signal.Signals,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    user: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own; the kernel sends it `death_signal` when we die.

    The session keeps a terminal's Ctrl-C away from it: this process decides in which order children end. `user` is a
    numeric user and group id to run as; it needs no entry in /etc/passwd, and needs root here.

    Call it from the main thread: the kernel ties the death signal to the *thread* that forked (prctl(2)).
    """
    parent = os.getpid()

    def before_exec() -> None:
        # Runs after the change of user, which would clear the death signal.
        if _libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
            os._exit(126)
        if user is not None and _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            os._exit(126)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if os.getppid() != parent:  # died between fork and prctl: no signal would come
            os._exit(126)

    # Blocks signals so that no handler raises before the caller knows the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return subprocess.Popen(
            command,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            preexec_fn=before_exec,  # noqa: PLW1509 - nothing in it takes a lock
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(
    command: Sequence[str],
    *,
    death_signal: signal.Signals = signal.SIGKILL,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
    stderr: int = subprocess.STDOUT,
    pass_fds: Sequence[int] = (),
    user: int | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run `command` to its end with `text` on its standard input.

    The result's `stdout` holds both outputs, unless `stderr` is PIPE. An exception here, such as one that a signal
    raises, ends the command and its children.
    """
    process = spawn(
        command,
        death_signal=death_signal,
        env=env,
        stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        pass_fds=pass_fds,
        user=user,
    )
    try:
        output, errors = process.communicate(None if text is None else text.encode())
    except BaseException:
        kill_session(process)
        process.wait()
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a child from `spawn` and its descendants that are still in its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
