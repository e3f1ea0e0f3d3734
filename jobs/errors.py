"""Errors that a user can act on, each with the exit code that the command ends with.

Exit codes: 0 done; 1 the job failed; 2 wrong usage or configuration; 3 data was rejected beyond the allowed share,
a rule that says `fail` was broken, or a whole file was refused; 130 stopped, by Ctrl-C or SIGTERM; 141 whoever read the
output had enough of it.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.warehouse.base import Check

# What whoever gives a path or its rights can mend.
PATH_ERRORS = (
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)


class UserAnalyticsError(Exception):
    """The job failed for a reason that the message explains."""

    exit_code = 1


class ConfigurationError(UserAnalyticsError):
    """A setting, argument or service is not as it must be; the message names it and says what to do."""

    exit_code = 2


class FileRefused(UserAnalyticsError):
    """One raw file cannot be read as its feed; the other files go on."""

    exit_code = 3


class RejectedShareExceeded(UserAnalyticsError):
    """More records were rejected than is allowed; nothing of the batch was committed."""

    exit_code = 3


class RuleFailed(UserAnalyticsError):
    """A rule that says `fail` was broken; nothing of the batch was staged, or nothing was published."""

    exit_code = 3


class TableLocked(UserAnalyticsError):
    """Another run writes a table, and did not end in the time that this one may wait."""


class LockLost(UserAnalyticsError):
    """A table's lock is not ours any more: another run may be writing the table, so this one must not."""


class KeyCollision(UserAnalyticsError):
    """Two different entities got the same key; the job stops instead of merging them."""


class QueryTooSlow(UserAnalyticsError):
    """A question to the warehouse took longer than it was given."""


class CheckFailed(UserAnalyticsError):
    """A post-load check failed; the whole publication was rolled back. checks: its checks, also those that passed."""

    def __init__(self, checks: Sequence[Check]) -> None:
        super().__init__(
            "publish: nothing was published, because the warehouse would differ from the marts: "
            + "; ".join(
                f"{c.table}: {c.name} is {c.found}, the mart has {c.expected}" for c in checks if not c.passed
            )
            + ". Where a table was changed by hand, delete its row in _published and publish again: it is then loaded "
            "whole"
        )
        self.checks = checks


def of_system(error: OSError) -> UserAnalyticsError:
    """An error of the system as one of these: one line that names the file."""
    what = error.strerror or str(error)
    kind = ConfigurationError if error.errno in PATH_ERRORS else UserAnalyticsError
    return kind(what if error.filename is None else f"{error.filename}: {what}")
