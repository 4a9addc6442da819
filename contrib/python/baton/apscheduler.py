"""An APScheduler (3.x) that runs only while this worker is the executor.

    from apscheduler.schedulers.background import BackgroundScheduler
    from baton.apscheduler import attach

    scheduler = BackgroundScheduler()
    scheduler.add_job(send_invoices, "interval", minutes=5)
    attach(scheduler)                       # instead of scheduler.start()

On promotion the scheduler is started, or resumed; on demotion it is paused, what runs is waited for,
and the supervisor is told. In between, each run is checked once more at the moment it would begin:
what fires while this worker is not the executor is dropped. Numbers of running jobs are reported, so
that a handoff waits for them.

Each firing is claimed before it runs, so that one that falls on a takeover does not run twice: once
in the old executor, once more as a misfire in the new one. It is known by the id of its job and its
time; a job without an id of its own (APScheduler gives it a random one, another in each worker) by
its function, arguments and trigger. Give jobs an id. attach(..., claims=False) runs without claims.

A scheduler whose start() must be called in its own thread (AsyncIOScheduler and its kin) is started
there by the program, with start(paused=True), before attach(). Jobs of a process pool are checked
when they are handed to the pool, those of the other executors also when they begin.
"""

import asyncio
import functools
import hashlib
import inspect
import logging
import re
import threading

from apscheduler.executors.pool import ProcessPoolExecutor
from apscheduler.schedulers.base import STATE_PAUSED, STATE_RUNNING, STATE_STOPPED

from .client import Baton, BatonError

_log = logging.getLogger("baton.apscheduler")

DROPPED = "dropped: not the executor"   # the result of a run that was not begun


def job_name(job):
    """What the firings of JOB are claimed under: the same in every worker."""
    if not re.fullmatch(r"[0-9a-f]{32}", str(job.id)) and len(str(job.id).encode()) <= 60:
        return str(job.id)
    stands_for = str(job.id)
    if re.fullmatch(r"[0-9a-f]{32}", stands_for):
        stands_for = repr((job.func_ref or job.name, job.args, sorted(job.kwargs.items()),
                           str(job.trigger)))
    digest = hashlib.sha256(stands_for.encode()).hexdigest()[:12]
    return f"{str(job.name)[:20]}#{digest}"


def attach(scheduler, baton=None, claims=True):
    """Tie SCHEDULER to BATON (default: that of the environment) in this process. Raises what
    Baton.from_environ() raises: `except NotSupervised: scheduler.start()` is for the program to
    decide."""
    return Attachment(scheduler, baton, claims)


class _RunTimes(list):
    """The times of one run_job, which goes through them one by one: which one is it at?"""

    current = None

    def __iter__(self):
        for self.current in super().__iter__():
            yield self.current


class _GuardedJob:
    """The job as APScheduler's run_job sees it, with a checked function."""

    def __init__(self, job, func):
        self._job, self.func = job, func

    def __getattr__(self, name):
        return getattr(self._job, name)

    def __str__(self):
        return str(self._job)


class Attachment:
    def __init__(self, scheduler, baton=None, claims=True):
        self.scheduler = scheduler
        self._claims = claims
        self.baton = Baton.from_environ() if baton is None else baton
        self.dropped = 0
        self._owns = baton is None
        self._running = 0
        self._changed = threading.Condition()
        self._lookup = scheduler._lookup_executor
        scheduler._lookup_executor = self._lookup_guarded
        if scheduler.state == STATE_RUNNING and not self.baton.may_start():
            scheduler.pause()
        self.baton.start(on_promote=self._promote, on_demote=self._demote)

    def close(self):
        """Stop listening; the scheduler is left paused and guarded."""
        self.baton.stop()
        if self.scheduler.state == STATE_RUNNING:
            self.scheduler.pause()
        if self._owns:
            self.baton.close()

    @property
    def running(self):
        """How many runs have been handed to executors and have not ended."""
        return self._running

    def _promote(self, event):
        if self.scheduler.state == STATE_STOPPED:
            self.scheduler.start()
        elif self.scheduler.state == STATE_PAUSED:
            self.scheduler.resume()
        _log.info("executor under term %d: scheduler runs", event.term)

    def _demote(self, event):
        if self.scheduler.state == STATE_RUNNING:
            self.scheduler.pause()
        _log.info("no longer the executor (%s): scheduler paused, waiting for %d jobs",
                  event.reason, self._running)
        # Without a limit of its own: the supervisor ends this process when the grace has passed.
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0)

    # the guard: every executor passes through here, also one that is added later

    def _lookup_guarded(self, alias):
        executor = self._lookup(alias)
        if not hasattr(executor, "_baton_guarded"):
            executor._baton_guarded = True
            for name, guard in (("submit_job", self._guard_submit),
                                ("_do_submit_job", self._guard_run),
                                ("_run_job_success", self._guard_end),
                                ("_run_job_error", self._guard_end)):
                setattr(executor, name, guard(executor, getattr(executor, name)))
        return executor

    def _count(self, change):
        with self._changed:
            self._running += change
            self.baton.busy(self._running)
            self._changed.notify_all()

    def _drop(self, job):
        with self._changed:
            self.dropped += 1
        _log.warning("job '%s' fired while this worker is not the executor, or ran already: dropped",
                     job)
        return DROPPED

    def _guard_submit(self, _executor, submit):
        def submit_job(job, run_times):
            if not self.baton.may_start():
                self._drop(job)
                return
            self._count(+1)
            try:
                submit(job, run_times)
            except BaseException:
                self._count(-1)
                raise
        return submit_job

    def _claim(self, job, run_time):
        """May JOB begin, for the firing of RUN_TIME?"""
        if not self.baton.may_start():
            return False
        if not self._claims or run_time is None:
            return True
        try:
            return self.baton.claim(job_name(job), run_time)
        except BatonError as error:
            _log.error("job '%s', due at %s, cannot be claimed and does not run: %s", job, run_time,
                       error)
            return False

    def _guard_run(self, executor, do_submit):
        def _do_submit_job(job, run_times):
            if isinstance(executor, ProcessPoolExecutor):
                if self._claims:        # there is no baton in its processes
                    run_times = [at for at in run_times if self._claim(job, at) or
                                 self._drop(job) is None]
            else:
                run_times = _RunTimes(run_times)
                job = _GuardedJob(job, self._guarded(job, run_times))
            return do_submit(job, run_times)
        return _do_submit_job

    def _guarded(self, job, run_times):
        func, drop = job.func, self._drop
        if inspect.iscoroutinefunction(inspect.unwrap(getattr(func, "func", func))):
            async def run(*args, **kwargs):
                loop = asyncio.get_running_loop()
                at = run_times.current
                if not await loop.run_in_executor(None, self._claim, job, at):
                    return drop(job)
                return await func(*args, **kwargs)
        else:
            def run(*args, **kwargs):
                if not self._claim(job, run_times.current):
                    return drop(job)
                return func(*args, **kwargs)
        return functools.wraps(func, assigned=("__name__", "__doc__"))(run) \
            if hasattr(func, "__name__") else run

    def _guard_end(self, _executor, end):
        def run_job_end(*args, **kwargs):
            try:
                return end(*args, **kwargs)
            finally:
                self._count(-1)
        return run_job_end
