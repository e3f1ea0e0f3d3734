"""Upload files into the raw zone of a feed.

Grain:    one object per file, `raw/<feed>/[<folder>/]<name>`.
Inputs:   files, or folders with files in them.
Outputs:  the same bytes in the lake, multipart where they are large, checked by SHA-256. Run tables.
Re-run:   a file that is there, or in the archive, with the same content is left alone; one that is there with other
          content is refused unless --replace.
Example:  python -m jobs upload logs events-2026-11-20.jsonl.gz
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.console import UploadProgress, log
from jobs.context import job_main, open_run, parser
from jobs.datasets import Dataset
from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.feeds import FEEDS
from jobs.lake.archive import as_archived
from jobs.lake.objects import ObjectStore, is_hidden, sha256_of
from jobs.runs import recorded
from jobs.settings import Settings


@dataclass(frozen=True)
class UploadResult:
    """uploaded, unchanged: paths in the lake."""

    uploaded: tuple[str, ...]
    unchanged: tuple[str, ...]


def upload(
    store: ObjectStore, feed: str, paths: Sequence[Path], folder: str = "", replace: bool = False
) -> UploadResult:
    """Store files below `raw/<feed>/<folder>`.

    Raises ConfigurationError for a path that does not exist or whose name Spark would not read, before anything is
    sent; UserAnalyticsError, after all others were sent, for files that are there with other content.
    """
    below = "/".join(part for part in ("raw", feed, *folder.split("/")) if part)
    sources = [(source, f"{below}/{name}") for source, name in _sources(paths)]
    for source, target in sources:
        if problem := store.problem_of_name(target):
            raise ConfigurationError(f"upload: {str(source)!a}: {problem}; rename it")
    uploaded, unchanged, refused = [], [], []
    for source, target in sources:
        with source.open("rb") as stream:
            sha256 = sha256_of(stream)
        there = store.digest(target)
        if there == sha256:
            unchanged.append(target)
            log.info("upload: %s is there already, unchanged", target)
            continue
        if there is None and store.digest(as_archived(target)) == sha256:
            unchanged.append(target)
            log.info("upload: %s is in the archive, unchanged", target)
            continue
        if there is not None and not replace:
            refused.append(target)
            continue
        with UploadProgress(target, source.stat().st_size) as progress:
            try:
                store.put(source, target, sha256, replace, progress)
            except FileExistsError:
                refused.append(target)
                continue
        uploaded.append(target)
    if refused:
        raise UserAnalyticsError(
            f"upload: there with other content, not overwritten: {', '.join(refused)}. Upload under another name, or "
            "with --replace if this is a correction"
        )
    return UploadResult(tuple(uploaded), tuple(unchanged))


def _sources(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """(file, its path below the feed) for every file given, or found in a folder given and not hidden there."""
    found: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            files = [(file, file.relative_to(path).as_posix()) for file in _files_below(path)]
            if not files:
                raise ConfigurationError(f"upload: {path}: no files in this folder")
        elif path.is_file():
            if is_hidden(path.name):
                raise ConfigurationError(
                    f"upload: {path}: names that begin with _ or . are not read; rename it"
                )
            files = [(path, path.name)]
        else:
            raise ConfigurationError(f"upload: {path}: no such file or folder")
        for file, name in files:
            if name in found:
                raise ConfigurationError(f"upload: {found[name]} and {file} would both become {name}")
            found[name] = file
    return [(file, name) for name, file in found.items()]


def _files_below(folder: Path) -> Iterator[Path]:
    """The files below a folder, in order. What is left out is named in the log; what cannot be looked at raises."""
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name):
            log.info("upload: %s left out: names that begin with _ or . are not read", path)
        elif path.is_dir() and not path.is_symlink():
            yield from _files_below(path)
        elif path.is_file():
            yield path
        else:
            log.info("upload: %s left out: neither a file nor a folder itself", path)


def main(argv: Sequence[str] | None = None) -> int:
    """Upload files; the arguments are those of `--help`."""
    arguments = parser(__doc__, "upload")
    arguments.add_argument("feed", choices=sorted(FEEDS))
    arguments.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file or folder")
    arguments.add_argument(
        "--into", default="", metavar="FOLDER", help="folder below raw/<feed>, e.g. 2026-11-20"
    )
    arguments.add_argument("--replace", action="store_true", help="overwrite files whose content differs")
    options = arguments.parse_args(argv)

    def body() -> None:
        into = options.into
        if into.startswith("/") or ".." in into.split("/") or is_hidden(into.strip("/")):
            raise ConfigurationError(f"--into {into}: must be a plain folder below raw/{options.feed}")
        with open_run("upload", Settings.from_env()) as run, recorded(run), run.step("upload") as detail:
            # What is replaced must not be in the middle of being archived.
            with run.locks.hold(*([f"staging/{options.feed}"] if options.replace else [])):
                result = upload(run.store, options.feed, options.paths, into, options.replace)
            run.note_written(Dataset(f"raw/{options.feed}", files=len(result.uploaded)))
            detail.append(f"{len(result.uploaded)} files, {len(result.unchanged)} unchanged")
        print(f"{len(result.uploaded)} uploaded, {len(result.unchanged)} unchanged")

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
