"""Virtual time. Simulated threads are real ones that pass a baton: exactly one runs at any moment.

A thread keeps the baton until it waits (`Scheduler.sleep`, `SimulatedEvent.wait`) or ends. Whatever decides the order
is the heap of events, so the same seed gives the same run.
"""

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class ProcessDied(BaseException):
    """Raised in the threads of a dead simulated process. Not an Exception: nothing may recover from it."""


class Process:
    """A simulated operating-system process: it can be killed, and it can be stopped for a while (SIGSTOP)."""

    def __init__(self, scheduler: "Scheduler", name: str) -> None:
        self.scheduler = scheduler
        self.name = name
        self.dead = False
        self.end = "killed"
        """How it ended, once it is dead."""
        self.paused = False
        self.pauses: list[float] = []
        """When each pause began."""
        self._tasks: list[Task] = []
        self._frozen: list[tuple[Task, int]] = []

    def kill(self) -> None:
        """Kill it like kill -9: none of its threads continues."""
        self.dead = True
        self.paused = False
        self._frozen.clear()
        for task in self._tasks:
            self.scheduler.wake(task, task.turn)

    def retire(self) -> None:
        """Record that it ended by itself; its last thread is about to return."""
        self.end = "ended"
        self.kill()

    def pause(self, seconds: float) -> None:
        """Pause it like SIGSTOP; wake-ups of its threads wait until it continues."""
        if self.dead or self.paused:
            return
        self.paused = True
        self.pauses.append(self.scheduler.now)
        self.scheduler.after(seconds, self._go_on)

    def check(self) -> None:
        """Raise ProcessDied in a thread of a dead process."""
        if self.dead:
            raise ProcessDied(self.name)

    def paused_since(self, since_s: float) -> bool:
        """Return whether a pause began at or after `since_s`, in virtual seconds."""
        return any(began >= since_s for began in self.pauses)

    def start(self, body: Callable[[], None]) -> None:
        """Run `body` in a new thread of this process, soon."""
        task = Task(self, body)
        self._tasks.append(task)
        self.scheduler.wake(task, task.turn)

    def freeze(self, task: "Task", turn: int) -> None:
        self._frozen.append((task, turn))

    def ended(self, task: "Task") -> None:
        self._tasks.remove(task)

    def _go_on(self) -> None:
        if self.dead:
            return
        self.paused = False
        for task, turn in self._frozen:
            self.scheduler.wake(task, turn)
        self._frozen.clear()


class Task:
    """A thread of a simulated process. `turn` counts its waits, so that a late wake-up does nothing."""

    def __init__(self, process: Process, body: Callable[[], None]) -> None:
        self.process = process
        self.body = body
        self.turn = 0
        self.thread: _Thread | None = None


class _Thread:
    """A real thread that runs one task after the other."""

    def __init__(self, scheduler: "Scheduler") -> None:
        self._scheduler = scheduler
        self.go = threading.Lock()
        self.go.acquire()
        self.task: Task | None = None
        self.real = threading.Thread(target=self._run, name="simulated", daemon=True)
        self.real.start()

    def _run(self) -> None:
        while True:
            self.go.acquire()
            if self.task is None:
                return
            self._scheduler.carry(self.task)
            self.task = None
            self._scheduler.park(self)


class Event:
    """A future event. `in_main`: it runs in the thread that called `Scheduler.run`."""

    __slots__ = ("action", "in_main")

    def __init__(self, action: Callable[[], None], *, in_main: bool) -> None:
        self.action: Callable[[], None] | None = action
        self.in_main = in_main

    def cancel(self) -> None:
        self.action = None


class Scheduler:
    """The heap of events, and the baton. `now` is in virtual seconds since the start; it never goes back.

    A thread that has the baton and must wait runs the next events until one of them wakes a thread, often itself.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.failure: BaseException | None = None
        """The error that ended the run; `run` raises it."""
        self.current: Task | None = None
        self._events: list[tuple[float, int, Event]] = []
        self._numbers = itertools.count()
        self._until = 0.0
        self._woken: Task | None = None
        self._main = threading.Lock()
        self._main.acquire()
        self._parked: list[_Thread] = []
        self._begun: dict[Task, None] = {}

    def monotonic(self) -> float:
        """The clock of all simulated processes. Like the real one, it continues while a process is paused."""
        return self.now

    def at(self, at_s: float, action: Callable[[], None], *, in_main: bool = False) -> Event:
        event = Event(action, in_main=in_main)
        heapq.heappush(self._events, (max(at_s, self.now), next(self._numbers), event))
        return event

    def after(self, seconds: float, action: Callable[[], None], *, in_main: bool = False) -> Event:
        return self.at(self.now + seconds, action, in_main=in_main)

    def run(self, until: float) -> None:
        """Run all events up to the virtual time `until`. Raises `failure`."""
        self._until = until
        while self.failure is None:
            task = self._next_task(in_main=True)
            if task is not None:
                self._lend(task)
            elif not self._events or self._events[0][0] > until:
                break
        if self.failure is not None:
            raise self.failure
        self.now = until

    def fail(self, error: BaseException) -> None:
        """End the run with `error`."""
        if self.failure is None:
            self.failure = error

    def wake(self, task: Task, turn: int) -> None:
        """Wake `task` if it is still in the wait number `turn`."""
        self.at(self.now, lambda: self._resume(task, turn))

    def sleep(self, seconds: float) -> None:
        """Wait in the current task. Raises ProcessDied."""
        task = self.here()
        self.wake_after(seconds, task)
        self.suspend(task)

    def wake_after(self, seconds: float, task: Task) -> Event:
        """Wake `task` in `seconds` from the wait that it is about to begin."""
        turn = task.turn
        return self.after(seconds, lambda: self._resume(task, turn))

    def suspend(self, task: Task) -> None:
        """Pass the baton on until another thread or event wakes `task`. Raises ProcessDied."""
        thread = task.thread
        if thread is None:
            raise RuntimeError("only a running task can wait")
        self.current = None
        woken = self._next_task()
        if woken is task:
            self.current = task
        else:
            self._hand_on(woken)
            thread.go.acquire()
        task.process.check()

    def here(self) -> Task:
        """Return the running task. Raises ProcessDied if its process is dead."""
        if self.current is None:
            raise RuntimeError("this is no simulated thread")
        self.current.process.check()
        return self.current

    def close(self) -> None:
        """End all threads; their processes are dead by now."""
        self._until = -1.0
        self.failure = None
        for task in list(self._begun):
            self._lend(task)
        for thread in self._parked:
            thread.go.release()
            thread.real.join()

    def carry(self, task: Task) -> None:
        """Run a task to its end, in its real thread."""
        try:
            task.body()
        except ProcessDied:
            return
        except BaseException as error:  # noqa: BLE001 - `run` raises it
            self.fail(error)
        finally:
            task.turn += 1
            self._begun.pop(task)
            task.process.ended(task)

    def park(self, thread: _Thread) -> None:
        """Pass the baton on at the end of a task."""
        self.current = None
        self._parked.append(thread)
        self._hand_on(self._next_task())

    def _next_task(self, *, in_main: bool = False) -> Task | None:
        """Run events until one of them wakes a task, and return the task; None: the main thread's turn."""
        while self.failure is None and self._events and self._events[0][0] <= self._until:
            at_s, _, event = self._events[0]
            if event.in_main and not in_main and event.action is not None:
                return None
            heapq.heappop(self._events)
            if event.action is None:
                continue
            self.now = at_s
            try:
                event.action()
            except BaseException as error:  # noqa: BLE001 - `run` raises it
                self.fail(error)
            if self._woken is not None:
                woken, self._woken = self._woken, None
                return woken
        return None

    def _resume(self, task: Task, turn: int) -> None:
        """Select `task` to continue. For use in events."""
        if task.turn != turn:
            return
        if task.process.paused:
            task.process.freeze(task, turn)
            return
        if task.thread is None and task.process.dead:
            task.process.ended(task)
            return
        task.turn += 1
        self._woken = task

    def _hand_on(self, task: Task | None) -> None:
        if task is None:
            self._main.release()
            return
        if task.thread is None:
            task.thread = self._parked.pop() if self._parked else _Thread(self)
            task.thread.task = task
            self._begun[task] = None
        self.current = task
        task.thread.go.release()

    def _lend(self, task: Task) -> None:
        """Pass the baton on from the main thread, and wait until it returns."""
        self._hand_on(task)
        try:
            self._main.acquire()
        except BaseException as error:  # noqa: BLE001 - a signal's handler raised it: the threads must stop first
            self.fail(error)
            self._main.acquire()


class SimulatedEvent(threading.Event):
    """An event of virtual time."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._waiting: list[tuple[Task, int]] = []

    def set(self) -> None:
        super().set()
        for task, turn in self._waiting:
            self._scheduler.wake(task, turn)
        self._waiting.clear()

    def wait(self, timeout: float | None = None) -> bool:
        task = self._scheduler.here()
        if self.is_set():
            return True
        turn = task.turn
        self._waiting.append((task, turn))
        end = None if timeout is None else self._scheduler.wake_after(timeout, task)
        try:
            self._scheduler.suspend(task)
        finally:
            if end is not None:
                end.cancel()
            if (task, turn) in self._waiting:
                self._waiting.remove((task, turn))
        return self.is_set()


class SimulatedFuture(Future[Any]):
    """A future that is awaited in virtual time."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._over = SimulatedEvent(scheduler)
        self.add_done_callback(lambda _: self._over.set())

    def result(self, timeout: float | None = None) -> Any:
        self._over.wait(timeout)
        return super().result(timeout=0)


class SimulatedExecutor(Executor):
    """An executor that runs calls in threads of a simulated process, without a limit."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._running = 0
        self._idle = SimulatedEvent(process.scheduler)
        self._idle.set()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future = SimulatedFuture(self._process.scheduler)

        def run() -> None:
            try:
                result = fn(*args, **kwargs)
            except ProcessDied:
                raise
            except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                self._ended()
                future.set_exception(error)
            else:
                self._ended()
                future.set_result(result)

        self._running += 1
        self._idle.clear()
        self._process.start(run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        if wait:
            self._idle.wait()

    def _ended(self) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()
