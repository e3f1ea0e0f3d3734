"""What Spark's errors are about: Java's errors have causes, of which the innermost says what happened."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA_FILE = re.compile(r"(?:\w+:)?/[^\s'\"]*\.(?:parquet|json)(?:\.gz)?\b")
# What is among the causes of an error of Spark's when a store does not answer, or not to the end, and what it says when
# a disk is full.
NO_ANSWER = {
    "AWSApiCallTimeoutException",
    "AWSClientIOException",
    "AWSNoResponseException",
    "AWSServiceThrottledException",
    "AWSStatus500Exception",
    "ConnectException",
    "ConnectTimeoutException",
    "ConnectionClosedException",
    "NoRouteToHostException",
    "SdkClientException",
    "SocketException",
    "SocketTimeoutException",
    "UnknownHostException",
}
DISK_FULL = {os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)}


def root_cause(error: BaseException) -> str:
    """The innermost message of an error, in one line, without a stack trace; with the file that outer ones name."""
    # Some have no message, as that of a stack that is full.
    messages = _of_causes(error, lambda java: java.getMessage() or java.getClass().getSimpleName())
    text = (messages or [str(error)])[-1] or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [text]
    # What a function in Python raised stands at the end of its traceback, behind the error's class.
    line = (lines[-1].partition(": ")[2] or lines[-1] if lines[0].startswith("Traceback") else lines[0])[:500]
    file = next((found[0] for message in messages if (found := DATA_FILE.search(message))), None)
    return line if file is None or Path(file).name in line else f"{line} (in {file})"


def was_cancelled(error: BaseException) -> bool:
    """Whether an error of Spark's says no more than that its job was cancelled: the run is stopped, or lost a lock."""
    return root_cause(error).startswith("[SPARK_JOB_CANCELLED]")


def is_of_machine(error: BaseException) -> bool:
    """Whether an error of Spark's is no fault of what was read: a store did not answer, or a disk is full."""
    kinds = _of_causes(error, lambda java: java.getClass().getSimpleName())
    # The whole message: others may quote a record, which may say anything.
    messages = _of_causes(error, lambda java: java.getMessage())
    return not NO_ANSWER.isdisjoint(kinds) or not DISK_FULL.isdisjoint(messages)


def root_kind(error: BaseException) -> str:
    """The innermost error's class: what can be told of an error whose message may quote a record."""
    kinds = _of_causes(error, lambda java: java.getClass().getSimpleName())
    return (kinds or [type(error).__name__])[-1]


def _of_causes(error: BaseException, read: Callable[[Any], object]) -> list[str]:
    """Something of a Java error and of its causes, outermost first; empty for an error of Python."""
    java = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    found = []
    try:
        while java is not None:
            found.append(str(read(java)))
            java = java.getCause()
    except Exception:  # not a Java exception after all
        return []
    return found
