"""Client of the baton supervisor: am I the scheduler executor?

    from baton import Baton

    baton = Baton.from_environ()
    if baton.is_executor():
        ...                                 # nanoseconds, asks nobody; ask again before each effect

    baton.start(on_promote=lambda event: scheduler.resume(),
                on_demote=lambda event: scheduler.pause())

`baton.apscheduler` does that for an APScheduler 3; `baton.lock.SchedulerLock` takes part in the
same election from a program that baton did not start. Standard library only, Python 3.8 or later.
"""

from .client import (Baton, BatonError, Demote, NotSupervised, Promote, notify, watchdog_interval)

__all__ = ["Baton", "BatonError", "Demote", "NotSupervised", "Promote", "notify",
           "watchdog_interval"]
__version__ = "0.1.0"
