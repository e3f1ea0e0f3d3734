"""Connections to PostgreSQL: as every part of the warehouse opens them, with what goes wrong told in one line."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg2

from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.settings import without_password


@contextmanager
def told(action: str) -> Iterator[None]:
    """Turn what psycopg2 raises into one line."""
    try:
        yield
    except psycopg2.errors.DuplicateTable as error:
        raise UserAnalyticsError(
            f"{action}: PostgreSQL: {one_line(error)}. It belongs to what somebody made, renamed or detached: move "
            "that to another schema (ALTER TABLE … SET SCHEMA), or drop it, and publish again"
        ) from None
    except psycopg2.Error as error:
        raise UserAnalyticsError(f"{action}: PostgreSQL: {one_line(error)}") from None


@contextmanager
def connected(url: str) -> Iterator[Any]:
    with closing(_connect(url)) as connection, _stopped_by_signals(connection):
        yield connection


def _connect(url: str) -> Any:
    try:
        connection = psycopg2.connect(
            url, connect_timeout=10, application_name="user-analytics", client_encoding="UTF8"
        )
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
            if connection.server_version >= 140_000:
                # A publication's sessions wait as long as rows are copied beside them.
                cursor.execute("SET idle_session_timeout = 0")
        connection.commit()
    except psycopg2.Error as error:
        raise ConfigurationError(f"WAREHOUSE_URL={without_password(url)}: {one_line(error)}") from None
    return connection


@contextmanager
def _stopped_by_signals(connection: Any) -> Iterator[None]:
    """Have Ctrl-C and `kill` cancel the statement under way: Python hears of them only when it has ended.

    A wait callback of psycopg2's would do it, too, but for all threads and without its COPY and connect_timeout.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hearing, told_of = socket.socketpair()
    told_of.setblocking(False)

    def listen() -> None:
        while number := hearing.recv(1):
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                with suppress(psycopg2.Error):
                    connection.cancel()
            # Another connection's, around this one.
            if before != -1:
                os.write(before, number)

    listening = threading.Thread(target=listen, daemon=True)
    before = signal.set_wakeup_fd(told_of.fileno())
    listening.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        told_of.close()
        listening.join()
        hearing.close()


def encoding_problem(connection: Any) -> str | None:
    encoding = connection.get_parameter_status("server_encoding")
    if encoding == "UTF8":
        return None
    return (
        f"the database's encoding is {encoding}, which cannot hold every text; make one with ENCODING 'UTF8'"
    )


def quoting_problem(cursor: Any) -> str | None:
    """ADBC's driver knows types by the names of functions, which it does not expect in quotes."""
    cursor.execute("SELECT current_setting('quote_all_identifiers')::boolean")
    if not only_value(cursor):
        return None
    return (
        "quote_all_identifiers is on, with which no rows can be copied; set it off for the publisher's role "
        "(ALTER ROLE … SET quote_all_identifiers = off), or in the address: ?options=-c%20quote_all_identifiers%3Doff"
    )


def only_value(cursor: Any) -> Any:
    return cursor.fetchone()[0]


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
