"""The one engine that stages every feed. `stage` reads from top to bottom like the way of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.causes import is_of_machine, root_cause, root_kind, was_cancelled
from jobs.console import log
from jobs.context import RunContext
from jobs.datasets import Dataset
from jobs.errors import FileRefused, RejectedShareExceeded
from jobs.feeds import FEEDS
from jobs.feeds.declaration import Feed
from jobs.feeds.mapping import SourceNames, declared_sources, mapped_sources, mapping_text
from jobs.lake import raw
from jobs.lake.archive import require_all_there
from jobs.lake.ledger import (
    FORGOTTEN,
    REFUSED,
    STAGED,
    Ledger,
    LedgerEntry,
    as_delivered,
    by_path,
    files_beside,
    is_same_content,
    new_files,
    next_batch,
    unknown_files,
    unsettled_files,
)
from jobs.lake.objects import RawFile
from jobs.lake.quarantine import quarantine_table, write_quarantine
from jobs.lake.raw import InspectedFile
from jobs.lake.tables import Lake, LakeTable
from jobs.quality.feeds import FileCounts, judge_feed, judge_freshness
from jobs.quality.rules import Action
from jobs.spark import computed_once, in_plan_if_few, local_rows
from jobs.transforms.checks import broken, checked
from jobs.transforms.duplicates import (
    content_differs,
    preference,
    rejected_or_repeated,
    repeated_keys,
    require_same_natural_key,
    survivors,
    with_record_key,
    with_repeated_key,
)
from jobs.transforms.keys import KEY

DEFAULT_MAX_REJECTED_SHARE = 0.2
MAX_ERROR = 4000
SAME_KEY = " AND ".join(f"s.{name} = t.{name}" for name in KEY)


@dataclass(frozen=True)
class StageResult:
    """What staging a feed did, one ledger entry per file."""

    feed: str
    entries: tuple[LedgerEntry, ...]

    def total(self, count: str) -> int:
        return sum(int(getattr(entry, count)) for entry in self.entries)

    @property
    def refused(self) -> tuple[LedgerEntry, ...]:
        return tuple(entry for entry in self.entries if entry.status == REFUSED)


def staging_table(lake: Lake, feed: Feed) -> LakeTable:
    """`staging/<feed>`: the feed's columns, `_extra` (unknown fields as JSON), where the row came from, and its key."""
    return LakeTable(
        lake,
        lake.settings.lake_path("staging", feed.name),
        T.StructType(
            [
                *(T.StructField(field.name, field.type) for field in feed.fields),
                T.StructField("_extra", T.StringType()),
                T.StructField("_file_id", T.LongType()),
                T.StructField("_delivered_at", T.TimestampType()),
                *(T.StructField(name, T.LongType()) for name in KEY),
            ]
        ),
        comment=f"Accepted records of {feed.name}. Grain: one row per natural key.",
        looked_up_by=("_file_id", *_times_of_key(feed)),
    )


def stage(
    run: RunContext,
    feed: Feed,
    names: SourceNames | None = None,
    max_rejected_share: float = DEFAULT_MAX_REJECTED_SHARE,
    reread: Collection[str] | None = None,
) -> StageResult:
    """Read what is new of a feed and put every record where it belongs.

    names: by which files are read; None for those by which the same version was staged before, else the declared ones.
    reread: read the files of these paths again, as though they were new, and leave those that are new to the next
    staging. What has to be read beside them always is.

    The order of the three commits makes a kill between any two harmless: a file counts as read only when the ledger
    says so, and reading it again finds its own rows by `_file_id` and ends in the same state.

    Raises, before anything is written, RejectedShareExceeded when more than max_rejected_share of the records read
    would be rejected, RuleFailed when a rule that says `fail` is broken, and KeyCollision when two natural keys have
    one hash.
    """
    # Held from the look at what is new to the note that it was read: two at once would both add the same.
    with run.locks.hold(f"staging/{feed.name}"):
        return _stage(run, feed, names, max_rejected_share, reread)


def _stage(
    run: RunContext,
    feed: Feed,
    names: SourceNames | None,
    max_rejected_share: float,
    reread: Collection[str] | None,
) -> StageResult:
    feed = feed.without_secrets() if run.settings.drop_secrets else feed
    ledger = Ledger(run)
    history = ledger.history(feed.name)
    current = by_path(history)
    listed = [as_delivered(file, current.get(file.path)) for file in run.store.list(f"raw/{feed.name}")]
    if not new_files(listed, history, reread):
        log.info("stage %s: nothing new", feed.name)
        if reread is None:
            judge_freshness(run, feed, history)
        return StageResult(feed.name, ())
    staged = staging_table(run, feed).counts_by("_file_id")
    unsettled, unknown = unsettled_files(history, staged), unknown_files(history, staged)
    if unsettled or unknown:
        log.warning(
            "stage %s: rows and ledger differ, since a run was stopped or a backup restored; put right",
            feed.name,
        )

    names_of: dict[RawFile, SourceNames] = {}
    refused: dict[RawFile, str] = {}

    def inspected(some: Sequence[RawFile]) -> list[InspectedFile]:
        names_of.update({f: _names_of(feed, f, current.get(f.path), names, reread) for f in some})
        return _inspect(run, feed, {file: names_of[file] for file in some}, refused)

    files = inspected(new_files(listed, history, reread, unsettled))
    new = [file.file for file in files]
    require_all_there(run.store, feed, listed, new, history)
    files += inspected(files_beside(listed, history, new, feed.last_stays))
    size = sum(file.size for file in names_of)
    log.info("stage %s: %d file(s), %s bytes to read", feed.name, len(names_of), f"{size:,}")
    away = (entry for path, entry in current.items() if path in unsettled - {file.path for file in names_of})
    accepted = {entry.file_id: staged.get(entry.file_id, 0) for entry in away}
    with run.heartbeat(f"stage {feed.name}"):
        records, counts, files = _records(run, feed, files, refused)
        if records is not None:
            try:
                _require_share(feed, counts.values(), max_rejected_share)
                counted = {file.file.path: counts[file.file_id] for file in files}
                valid = _valid(records)
                judge_feed(
                    run, feed, valid, counted, history, lambda name: _staged(run, name), reread is None
                )
                with _sorted_out(feed, records, valid, counts) as (rejected, kept):
                    _write_quarantine(run, feed, rejected, files)
                    accepted |= _write_accepted(run, feed, kept, files, counts, current.values(), unknown)
            finally:
                records.unpersist()

    batch = next_batch(history)
    entries = _entries(run, feed, batch, counts, accepted, files, refused, names_of)
    read = {entry.path for entry in entries}
    # Staging of other feeds writes there, too.
    with run.locks.hold("staging/_ingested_files"):
        ledger.write(
            [
                *(entry for entry in entries if not _refused_before(entry, current)),
                *_recounted(run, batch, accepted, (e for path, e in current.items() if path not in read)),
            ]
        )
    result = StageResult(feed.name, entries)
    _note(run, feed, result, ledger.table)
    run.refused = run.refused or bool(result.refused)
    _report(result, counts)
    return result


def _note(run: RunContext, feed: Feed, result: StageResult, ledger: LakeTable) -> None:
    files, rejected = len(result.entries), result.total("rejected")
    run.note_read(Dataset(f"raw/{feed.name}", rows=result.total("records_read"), files=files))
    run.note_table_written(ledger)
    if len(result.refused) < files:
        accepted = result.total("accepted")
        run.note_table_written(staging_table(run, feed), rows=accepted)
    if rejected:
        run.note_table_written(quarantine_table(run), rows=rejected)


def _names_of(
    feed: Feed,
    file: RawFile,
    last: LedgerEntry | None,
    given: SourceNames | None,
    reread: Collection[str] | None,
) -> SourceNames:
    """The names by which a file is read.

    Those given; without any, those by which this version was staged before. A file that is read only because another
    is keeps its own.
    """
    if last is None or not is_same_content(file, last) or last.status == REFUSED:
        return given or declared_sources(feed)
    is_wanted = last.status == FORGOTTEN or (reread is not None and file.path in reread)
    return given if given and is_wanted else mapped_sources(feed, last.mapping)


def _inspect(
    run: RunContext, feed: Feed, names_of: Mapping[RawFile, SourceNames], refused: dict[RawFile, str]
) -> list[InspectedFile]:
    readable = []
    for file, names in names_of.items():
        if problem := run.store.problem_of_name(file.path):
            refused[file] = f"{file.path}: {problem}; rename it"
            continue
        try:
            readable.append(raw.inspect(run.store, feed, names, file))
        except FileRefused as error:
            refused[file] = str(error)
    arrays = [file for file in readable if file.layout == "json_array"]
    if arrays:
        refused.update(raw.broken_arrays(run.spark, run.settings.lake_uri, arrays))
    return [file for file in readable if file.file not in refused]


def _records(
    run: RunContext, feed: Feed, files: list[InspectedFile], refused: dict[RawFile, str]
) -> tuple[DataFrame | None, dict[int, FileCounts], list[InspectedFile]]:
    """Parse, check, key and count all records, once; few are a part of the plan, others kept on disk.

    A file that breaks off is refused, the others are read. Gives the records, the counts and the files read.
    """
    while files:
        records = None
        try:
            # Their real size is known when they are there: a short file may hold long records, compressed.
            records = _keyed(run, feed, files).persist(StorageLevel.DISK_ONLY)
            counts = _counts(feed, records, files)
            few = in_plan_if_few(records)
            if few is None:
                return records, counts, files
            records.unpersist()
            return few, counts, files
        except (PySparkException, Py4JJavaError) as error:
            if records is not None:
                records.unpersist()
            if was_cancelled(error):
                raise
            broken = {file.file: message for file in files if (message := _failure(run, feed, file))}
            if not broken:
                raise
            refused.update(broken)
            files = [file for file in files if file.file not in broken]
    return None, {}, []


def _keyed(run: RunContext, feed: Feed, files: Sequence[InspectedFile]) -> DataFrame:
    return with_record_key(feed, checked(feed, raw.read(run.spark, run.settings.lake_uri, feed, files)))


def _failure(run: RunContext, feed: Feed, file: InspectedFile) -> str | None:
    """Why a file cannot be read to its end, or None if it can."""
    try:
        _keyed(run, feed, [file]).write.format("noop").mode("overwrite").save()
    except (PySparkException, Py4JJavaError) as error:
        if was_cancelled(error) or is_of_machine(error):
            raise
        why = root_kind(error) if feed.has_personal else root_cause(error)
        return f"{file.file.path}: cannot be read to its end: {why}"
    return None


def _counts(feed: Feed, records: DataFrame, files: Sequence[InspectedFile]) -> dict[int, FileCounts]:
    rules = feed.rules_of_records(Action.WARN, Action.FAIL)
    # By all reasons at once: they are few, and one look at the records is enough.
    groups = (
        records.groupBy("_file_id", "_reasons")
        .agg(
            F.count("*").alias("records"),
            F.count("_extra").alias("extra"),
            *(F.count_if(broken(rule, F.col(rule.columns[0]))).alias(f"rule {rule.name}") for rule in rules),
        )
        .collect()
    )
    unknown: dict[int, list[str]] = {}
    if any(group.extra for group in groups):
        keys = records.select("_file_id", F.explode(F.json_object_keys("_extra")).alias("name")).distinct()
        for row in keys.orderBy("name").collect():
            unknown.setdefault(row._file_id, []).append(row.name)

    of_file: dict[int, list[Row]] = {}
    for group in groups:
        of_file.setdefault(group._file_id, []).append(group)

    def counts(file_id: int, ours: Sequence[Row]) -> FileCounts:
        reasons: Counter[str] = Counter()
        for group in ours:
            for reason in filter(None, group._reasons.split(",")):
                reasons[reason] += group.records
        return FileCounts(
            sum(group.records for group in ours),
            sum(group.records for group in ours if group._reasons),
            reasons,
            unknown.get(file_id, ()),
            {r.name: sum(group[f"rule {r.name}"] for group in ours if not group._reasons) for r in rules},
        )

    return {file.file_id: counts(file.file_id, of_file.get(file.file_id, ())) for file in files}


def _require_share(feed: Feed, counted: Collection[FileCounts], max_share: float) -> None:
    read, rejected = sum(c.read for c in counted), sum(c.rejected for c in counted)
    if read and rejected / read > max_share:
        reasons: Counter[str] = sum((Counter(c.reasons) for c in counted), Counter())
        most = ", ".join(f"{reason} {n:,}" for reason, n in reasons.most_common(5))
        raise RejectedShareExceeded(
            f"{feed.name}: {rejected:,} of {read:,} records would be rejected ({rejected / read:.1%}), more than the "
            f"allowed {max_share:.0%}: {most}. Nothing was staged. Mend the files or the mapping, or allow more with "
            "--max-rejected"
        )


def _staged(run: RunContext, name: str) -> DataFrame | None:
    table = staging_table(run, FEEDS[name])
    return table.read() if table.exists() else None


def _valid(records: DataFrame) -> DataFrame:
    return records.where("_reasons = ''").drop("_reasons", "_record")


@contextmanager
def _sorted_out(
    feed: Feed, records: DataFrame, valid: DataFrame, counts: Mapping[int, FileCounts]
) -> Iterator[tuple[DataFrame | None, DataFrame]]:
    """The rejected records, None where there are none, and of the valid ones one for each key."""
    any_rejected = any(count.rejected for count in counts.values())
    with computed_once(repeated_keys(valid)) as repeated:
        # Both kinds are picked out together: it takes a look at every record.
        pick = rejected_or_repeated if any_rejected else with_repeated_key
        with computed_once(pick(records, repeated), bound=records) as picked:
            kept = valid
            if not repeated.isEmpty():
                candidates = _valid(picked)
                require_same_natural_key(feed, candidates)
                kept = survivors(feed, valid, repeated, candidates)
            yield picked.where("_reasons <> ''") if any_rejected else None, kept


def _write_quarantine(
    run: RunContext, feed: Feed, rejected: DataFrame | None, files: Sequence[InspectedFile]
) -> None:
    rows = None
    if rejected is not None:
        paths = local_rows(
            run.spark, [(f.file_id, f.file.path) for f in files], "_file_id bigint, path string"
        )
        rows = rejected.join(F.broadcast(paths), "_file_id").select(
            F.lit(feed.name).alias("feed"),
            F.col("_file_id").alias("file_id"),
            "path",
            F.split("_reasons", ",").alias("reasons"),
            F.col("_record").alias("record"),
            F.lit(run.run_id).alias("run_id"),
            F.lit(datetime.now(UTC)).alias("rejected_at"),
        )
    with run.locks.hold("staging/_quarantine"):
        write_quarantine(quarantine_table(run), feed.name, [f.file_id for f in files], rows)


def _write_accepted(
    run: RunContext,
    feed: Feed,
    kept: DataFrame,
    files: Sequence[InspectedFile],
    counts: Mapping[int, FileCounts],
    known: Iterable[LedgerEntry],
    unknown: Sequence[int],
) -> dict[int, int]:
    """Bring the accepted records, one for each key, into staging in one commit.

    unknown: ids of files that have rows of which nothing is noted; they are taken for this batch's.
    Gives the number of rows of every file of the batch, and of every known file where rows may have changed hands.
    """
    target = staging_table(run, feed).ensure()
    ids = [*(file.file_id for file in files), *unknown]
    any_valid = any(count.read > count.rejected for count in counts.values())
    # Its first version is that of an empty table.
    if target.version() == 0:
        target.append(kept)
        return target.counts_by("_file_id")

    there = target.read()
    ours = F.col("_file_id").isin(ids)
    has_ours = bool(target.counts_by("_file_id", ids))
    with computed_once(_matched(feed, kept, there.where(~ours)), bound=kept) as matched:
        (found,) = matched.agg(F.count("*").alias("keys"), F.count_if("_better").alias("better")).collect()
        if has_ours or found.better:
            _merge(feed, target, kept, ids, has_ours)
            none = dict.fromkeys((entry.file_id for entry in known), 0)
            return none | target.counts_by("_file_id")
        new = kept.join(matched.select(*KEY), list(KEY), "left_anti") if found.keys else kept
        if any_valid and not (found.keys and new.isEmpty()):
            target.append(new)
        return target.counts_by("_file_id", ids)


def _matched(feed: Feed, kept: DataFrame, there: DataFrame) -> DataFrame:
    """The keys of the batch that other files brought before, and whether the batch's record is the better one."""
    times = _times_of_key(feed)
    if times:
        # Files of the table that hold other times only need not be opened. Microseconds, not Python's datetime, which
        # would read them in this machine's time zone.
        bounds = kept.agg(
            *(f(F.unix_micros(name)).alias(f"{f.__name__}_{name}") for name in times for f in (F.min, F.max))
        ).collect()[0]
        for name in times:
            low, high = (F.timestamp_micros(F.lit(bounds[f"{f}_{name}"])) for f in ("min", "max"))
            there = there.where(F.col(name).between(low, high))
    better = _better(feed)
    return (
        there.alias("t")
        .join(kept.alias("s"), [F.col(f"s.{name}") == F.col(f"t.{name}") for name in KEY])
        .select(*(F.col(f"s.{name}") for name in (*KEY, "_file_id")), better.alias("_better"))
    )


def _times_of_key(feed: Feed) -> list[str]:
    return [f.name for f in feed.fields if f.name in feed.key and isinstance(f.type, T.TimestampType)]


def _better(feed: Feed) -> Column:
    return content_differs(feed, "s.", "t.") & (preference(feed, "s.") > preference(feed, "t."))


def _merge(feed: Feed, target: LakeTable, kept: DataFrame, ids: Sequence[int], has_ours: bool) -> None:
    ours = F.col("t._file_id").isin(list(ids))
    redelivered = content_differs(feed, "s.", "t.") | reduce(
        or_, (F.col(f"s.{name}") != F.col(f"t.{name}") for name in ("_delivered_at", "_file_id"))
    )

    def clauses(merge: Any) -> Any:
        merge = merge.whenMatchedUpdateAll((ours & redelivered) | (~ours & _better(feed)))
        merge = merge.whenNotMatchedInsertAll()
        # What these files brought earlier and no longer say.
        return merge.whenNotMatchedBySourceDelete(ours) if has_ours else merge

    target.merge(kept, SAME_KEY, clauses)


def _entries(
    run: RunContext,
    feed: Feed,
    batch: int,
    counts: Mapping[int, FileCounts],
    accepted: Mapping[int, int],
    files: Sequence[InspectedFile],
    refused: Mapping[RawFile, str],
    names_of: Mapping[RawFile, SourceNames],
) -> tuple[LedgerEntry, ...]:
    now = datetime.now(UTC)

    def entry(file: InspectedFile, error: str | None) -> LedgerEntry:
        count, kept = counts.get(file.file_id, FileCounts()), accepted.get(file.file_id, 0)
        return LedgerEntry(
            feed=feed.name,
            path=file.file.path,
            version=file.file.version,
            file_id=file.file_id,
            size_bytes=file.file.size,
            modified_at=file.file.modified_at,
            batch=batch,
            status=REFUSED if error else STAGED,
            error=error,
            records_read=count.read,
            accepted=kept,
            duplicates=count.read - count.rejected - kept,
            rejected=count.rejected,
            unknown_columns=list(count.unknown_columns),
            run_id=run.run_id,
            staged_at=now,
            mapping=mapping_text(feed, file.names),
        )

    return (
        *(entry(file, None) for file in files),
        # A message may quote a header of any length; `etl_files` holds this much of it, and PostgreSQL no NUL.
        *(
            entry(InspectedFile(file, "refused", names_of[file]), error[:MAX_ERROR].replace("\0", "\ufffd"))
            for file, error in refused.items()
        ),
    )


def _recounted(
    run: RunContext, batch: int, rows: Mapping[int, int], others: Iterable[LedgerEntry]
) -> Iterator[LedgerEntry]:
    """New entries for files that were not read now, but whose rows another file took over with better records."""
    for entry in others:
        accepted = rows.get(entry.file_id, entry.accepted)
        if entry.status == STAGED and accepted != entry.accepted:
            yield replace(
                entry,
                batch=batch,
                accepted=accepted,
                duplicates=entry.records_read - entry.rejected - accepted,
                run_id=run.run_id,
                staged_at=datetime.now(UTC),
                is_recount=True,
            )


def _refused_before(entry: LedgerEntry, current: Mapping[str, LedgerEntry]) -> bool:
    """Whether the ledger already says just this of the file, so that trying again adds no line."""
    last = current.get(entry.path)
    return last is not None and (last.version, last.status, last.error) == (
        entry.version,
        REFUSED,
        entry.error,
    )


def _report(result: StageResult, counts: Mapping[int, FileCounts]) -> None:
    log.info(
        "stage %s: %s records read = %s accepted + %s duplicates + %s rejected",
        result.feed,
        *(f"{result.total(name):,}" for name in ("records_read", "accepted", "duplicates", "rejected")),
    )
    reasons: Counter[str] = sum((Counter(count.reasons) for count in counts.values()), Counter())
    if reasons:
        log.info("  rejected: %s", ", ".join(f"{reason} {n:,}" for reason, n in reasons.most_common()))
    for entry in result.entries:
        if entry.unknown_columns:
            log.info("  %s: unknown fields, kept in _extra: %s", entry.path, ", ".join(entry.unknown_columns))
        if entry.error:
            log.warning("  refused: %s", entry.error)
