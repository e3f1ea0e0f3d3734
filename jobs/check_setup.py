"""Check everything that a run needs, from Java to the services. Says what to do about each problem.

Inputs:   this machine (Python, Java, jars, disk), the settings, folders and services that they name, the provider of
          locations. Spark is not started.
Outputs:  standard output, one line per thing: ok, warn or fail. In the lake, a file of a few bytes is written, read and
          deleted again, in local folders one without a name; a local lake that is not there is made, and left empty.
          The warehouse is not changed. No password or key is printed.
Re-run:   safe at any time.
Exit:     1 when something fails.
Example:  user-analytics doctor
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from jobs import diagnosis
from jobs.context import job_main, parser
from jobs.diagnosis import FAIL, OK, Finding
from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.reports import add_json, print_json, print_lines
from jobs.settings import Settings


def findings() -> Iterator[Finding]:
    """All findings, one after the other."""
    yield from diagnosis.machine()
    try:
        settings = Settings.from_env()
    except ConfigurationError as error:
        yield Finding("settings", FAIL, str(error), "mend the variable; .env.example describes it")
        return
    yield Finding("settings", OK, repr(settings))
    yield from diagnosis.disks(settings)
    yield from diagnosis.lake(settings)
    yield diagnosis.warehouse(settings)
    yield diagnosis.logs(settings)
    yield diagnosis.geolocation()


def print_finding(finding: Finding) -> None:
    """Print a finding, and below it what to do."""
    advice = [f"      → {finding.advice}"] if finding.advice else []
    print_lines(f"{finding.state:4}  {finding.what}: {finding.found}", *advice)


def main(argv: Sequence[str] | None = None) -> int:
    """Check the set-up; the arguments are those of `--help`."""
    arguments = parser(__doc__, "doctor")
    add_json(arguments)
    options = arguments.parse_args(argv)

    def body() -> None:
        found = []
        for finding in findings():
            found.append(finding)
            if not options.json:
                print_finding(finding)
        failed = [finding.what for finding in found if finding.state == FAIL]
        if options.json:
            print_json({"ok": not failed, "findings": [asdict(finding) for finding in found]})
        if failed:
            raise UserAnalyticsError(f"doctor: {', '.join(dict.fromkeys(failed))}: see above what to do")

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
