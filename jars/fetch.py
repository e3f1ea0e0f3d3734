"""Put the jars of ivy.xml into this environment's PySpark, checksums verified.

    .venv/bin/python jars/fetch.py            # fetch what is missing
    .venv/bin/python jars/fetch.py --update   # after an edit of ivy.xml: rewrite SHA256SUMS

Every jar is copied into `pyspark/jars/`, where any session of this environment
finds it, a plain `spark-submit` too, without `--packages` or `--jars`. Jars are
kept in the user's cache folder, so that a second clone needs no download. A call
that finds all jars in place starts no JVM and needs no network.

Only the standard library and PySpark's files are used: this runs before anything
of the project is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
SUMS = HERE / "SHA256SUMS"
# Inside pyspark/jars: the names that we put there, so that a changed version
# replaces its predecessor instead of standing beside it on the class path.
OURS = ".user-analytics-jars"


class FetchError(Exception):
    """Something the user can mend; printed without a stack trace."""


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sums() -> dict[str, str]:
    """File name → SHA-256, in the format of sha256sum."""
    sums: dict[str, str] = {}
    for line in SUMS.read_text().splitlines():
        if line.strip():
            expected, name = line.split(maxsplit=1)
            sums[name.lstrip("*")] = expected
    return sums


def is_right(path: Path, expected: str) -> bool:
    return path.is_file() and digest(path) == expected


def pyspark_home() -> Path:
    # find_spec does not import: importing PySpark would cost a second.
    spec = importlib.util.find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        raise FetchError(f"PySpark is not installed for {sys.executable}; run `make setup`.")
    return Path(next(iter(spec.submodule_search_locations)))


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "user-analytics" / "jars"


def proxy_options() -> list[str]:
    """Java reads no *_PROXY variables; hand it what the environment says."""
    options = []
    for scheme, proxy in urllib.request.getproxies().items():
        address = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        if scheme in ("http", "https") and address.hostname:
            options += [
                f"-D{scheme}.proxyHost={address.hostname}",
                f"-D{scheme}.proxyPort={address.port or 80}",
            ]
    return options


def retrieve(home: Path, into: Path) -> None:
    """Download every jar of ivy.xml into the folder `into`."""
    ivy = next(iter(sorted((home / "jars").glob("ivy-*.jar"))), None)
    if ivy is None:
        raise FetchError(
            f"no ivy-*.jar in {home / 'jars'}: PySpark is incomplete; remove .venv, run `make setup`."
        )
    java_home = os.environ.get("JAVA_HOME")
    java = str(Path(java_home) / "bin" / "java") if java_home else shutil.which("java")
    if not java or not os.access(java, os.X_OK):
        raise FetchError("no Java: install Java 17 or 21, or set JAVA_HOME, and run `make setup`.")
    settings = os.environ.get("IVY_SETTINGS") or HERE / "ivysettings.xml"
    with tempfile.TemporaryDirectory(prefix="user-analytics-ivy-") as work:
        command = [
            *(java, *proxy_options(), f"-Divy.home={work}", "-jar", ivy),
            *("-settings", settings, "-ivy", HERE / "ivy.xml", "-cache", f"{work}/cache"),
            *("-retrieve", f"{into}/[artifact]-[revision].[ext]"),
        ]
        done = subprocess.run(
            [str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    if done.returncode != 0:
        report = (done.stdout + done.stderr).splitlines()
        # Ivy reports hundreds of lines; those with a colon at the margin say what failed.
        wrong = [line for line in report if any(w in line for w in ("::", "ERROR", "FAILED", "xception"))]
        raise FetchError("Ivy could not fetch the jars:\n  " + "\n  ".join((wrong or report)[-12:]))


def fetch(home: Path, sums: dict[str, str], cache: Path) -> int:
    """Make pyspark/jars hold exactly the jars of `sums`; return how many were put there."""
    target = home / "jars"
    ours = target / OURS
    previous = set(ours.read_text().split()) if ours.is_file() else set()
    wanted = [name for name, expected in sums.items() if not is_right(target / name, expected)]
    missing = [name for name in wanted if not is_right(cache / name, sums[name])]
    if missing:
        print(f"jars: downloading {len(sums)} jars (22 MB) with Ivy …", flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            retrieve(home, Path(folder))
            for name in missing:
                jar = Path(folder) / name
                if not jar.is_file():
                    raise FetchError(f"{name} is in SHA256SUMS, but ivy.xml does not name it.")
                if (found := digest(jar)) != sums[name]:
                    raise FetchError(
                        f"checksum of {name} is {found}, expected {sums[name]}. The file was not kept. "
                        "Is a mirror or a proxy changing it?"
                    )
                jar.replace(cache / name)
    # First our list, then the files: a call that breaks off leaves no unknown jar behind.
    if previous | set(wanted) != previous:
        ours.write_text("\n".join(sorted(previous | set(sums))) + "\n")
    for name in wanted:
        part = target / f".{name}.part"
        shutil.copyfile(cache / name, part)
        part.replace(target / name)
    for name in previous - set(sums):
        (target / name).unlink(missing_ok=True)
    if wanted or previous != set(sums):
        ours.write_text("\n".join(sorted(sums)) + "\n")
    return len(wanted)


def update(home: Path) -> None:
    """Rewrite SHA256SUMS from what ivy.xml names now."""
    with tempfile.TemporaryDirectory() as folder:
        retrieve(home, Path(folder))
        jars = sorted(Path(folder).glob("*.jar"))
        SUMS.write_text("".join(f"{digest(jar)}  {jar.name}\n" for jar in jars))
    print(f"jars: {len(jars)} checksums written to {SUMS}; review the difference before you commit it.")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch the jars that Spark needs beyond PySpark.")
    parser.add_argument("--update", action="store_true", help="rewrite SHA256SUMS after an edit of ivy.xml")
    arguments = parser.parse_args()
    try:
        home = pyspark_home()
        if arguments.update:
            update(home)
        sums = read_sums()
        fetched = fetch(home, sums, cache_folder())
        print(f"jars: {len(sums)} in place, {fetched} new, all checksums right")
    except (FetchError, OSError) as error:
        print(f"jars: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
