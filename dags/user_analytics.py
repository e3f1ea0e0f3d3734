"""Raw files and purchases from a database → staging → marts → warehouse with views, once a day.

Each feed is a group of its own: files from the inbox are uploaded (and purchases extracted), then staged. Marts follow
their feeds, independent ones side by side. `publish` brings tables, post-load checks and views to the warehouse in one
transaction, so that dashboards never see half a run, and updates one asset per table for DAGs that follow them.
`report` writes what became of it all as one page below `results/reports/` in the lake.

**Parameters.** `feeds`: which feeds to bring in and build on. `warehouse`: the connection to publish to; its type
decides between PostgreSQL and BigQuery. `full_refresh`: make the marts of these feeds anew from what is staged.
`month`: build events of that month only.

**When something is refused.** A file that cannot be read, or more rejected records than allowed, turns its stage task
red without a retry: a person has to look. What was accepted is built and published all the same, and the run ends as
failed. Any other error is tried again after 5 minutes, then later.

**Again.** Any task may be cleared, killed, retried or run for a past date: the tables are the same. Connections and
variables: docs/operations.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, Asset, Param, TaskGroup, task
from airflow.sdk.exceptions import AirflowFailException
from spark_jobs import BIGQUERY, PROJECT, WAREHOUSE, SparkJobOperator

# -- What runs: a new feed or mart joins by a line ---------------------------------------------------------------

FEEDS = ("logs", "purchases", "reviews", "users", "events", "customers", "orders")
MONTH = "{% if params.month %}--month={{ params.month }}{% endif %}"


@dataclass(frozen=True)
class Mart:
    """job: file in jobs/ that builds the mart. feeds: the staged feeds that it reads. after: marts that it needs."""

    job: str
    feeds: tuple[str, ...]
    after: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    trigger_rule: str = "all_done"  # what was accepted is built, though a file beside it was refused

    @property
    def task_id(self) -> str:
        return self.job.removesuffix(".py")


MARTS = (
    Mart("build_star_schema.py", feeds=("logs",)),
    Mart("build_purchases.py", feeds=("purchases",)),
    Mart("build_review_features.py", feeds=("reviews",)),
    Mart("build_users.py", feeds=("users",)),
    Mart("locate_users.py", feeds=("users",), after=("build_users",)),
    Mart("build_events.py", feeds=("events",), arguments=(MONTH,)),
    Mart("enrich_customers.py", feeds=("customers", "orders")),
    Mart("measure_orders.py", feeds=("orders",)),
    Mart(
        "build_customer_orders.py",
        feeds=("customers", "orders"),
        after=("enrich_customers", "measure_orders"),
    ),
    Mart("analyze_orders.py", feeds=("customers", "orders"), after=("build_customer_orders",)),
    Mart("train_segments.py", feeds=("customers", "orders"), after=("enrich_customers",)),
    # What the jobs above handed to each other stays when one of them failed.
    Mart(
        "clean_up.py",
        feeds=("customers", "orders"),
        after=("build_customer_orders", "analyze_orders", "train_segments"),
        trigger_rule="all_success",
    ),
)

# Tables that other teams' DAGs can follow, e.g. schedule=[Asset("user_analytics.fact_user_actions")].
ASSETS = [Asset(f"user_analytics.{file.stem}") for file in sorted((PROJECT / "sql").glob("*.sql"))]

# -- How it runs ---------------------------------------------------------------------------------------------------

INBOX = os.environ.get("USER_ANALYTICS_INBOX") or str(PROJECT / "var" / "inbox")
ALERTS = os.environ.get("USER_ANALYTICS_ALERT_EMAIL")
DAY = "{{ (dag_run.logical_date or dag_run.run_after).strftime('%Y-%m-%d') }}"

with DAG(
    "user_analytics",
    doc_md=__doc__,
    schedule="@daily",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001 - Airflow's default zone is UTC
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    default_args={
        "owner": "analytics",
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
        "execution_timeout": timedelta(hours=3),
    },
    on_failure_callback=[SmtpNotifier(to=ALERTS, subject="user_analytics failed: {{ run_id }}")]
    if ALERTS
    else [],
    params={
        "feeds": Param(
            list(FEEDS), type="array", items={"enum": list(FEEDS)}, description="Feeds to bring in"
        ),
        "full_refresh": Param(False, type="boolean", description="Make the marts of these feeds anew"),
        "month": Param(
            None,
            type=["null", "string"],
            # No others than the job takes: with those it would end, be tried again, and again.
            pattern="^[0-9]{4}-(0[1-9]|1[0-2])$",
            maxLength=7,
            description="Events of this month only, YYYY-MM",
        ),
        "warehouse": Param(WAREHOUSE, enum=[WAREHOUSE, BIGQUERY], description="Connection of the warehouse"),
    },
    tags=["user-analytics", "spark"],
) as dag:
    staged = {}
    for feed in FEEDS:
        with TaskGroup(feed):
            stage = SparkJobOperator(
                task_id="stage",
                job="stage_feed.py",
                arguments=[feed],
                feeds=[feed],
                trigger_rule="none_failed",
            )
            upload = SparkJobOperator(
                task_id="upload",
                job="upload_files.py",
                arguments=[feed, f"{INBOX}/{feed}"],
                feeds=[feed],
                needs_files=f"{INBOX}/{feed}",
            )
            upload >> stage
            if feed == "purchases":
                extract = SparkJobOperator(
                    task_id="extract",
                    job="extract_purchases.py",
                    arguments=["--date", DAY],
                    feeds=[feed],
                    source=True,
                )
                extract >> stage
        staged[feed] = stage

    # Marts of other feeds are not built by this run, and stay.
    reset = SparkJobOperator(
        task_id="reset_marts",
        job="reset_marts.py",
        arguments=["--feeds={{ params.feeds | join(',') }}"],
        feeds=FEEDS,
        only_with="full_refresh",
    )
    publish = SparkJobOperator(task_id="publish", job="publish.py", outlets=ASSETS, trigger_rule="all_done")
    with TaskGroup("marts"):
        built: dict[str, SparkJobOperator] = {}
        for mart in MARTS:
            build = SparkJobOperator(
                task_id=mart.task_id,
                job=mart.job,
                arguments=mart.arguments,
                feeds=mart.feeds,
                trigger_rule=mart.trigger_rule,
            )
            built[mart.task_id] = build
            needs = [built[name] for name in mart.after] or [reset, *(staged[feed] for feed in mart.feeds)]
            needs >> build >> publish

    dashboards = SparkJobOperator(task_id="dashboards", job="dashboard_link.py")
    report = SparkJobOperator(
        task_id="report",
        job="report_run.py",
        arguments=["--since", "{{ dag_run.start_date.isoformat() }}"],
        trigger_rule="all_done",
    )
    publish >> [dashboards, report]

    @task(trigger_rule="one_failed", retries=0)
    def failed_tasks() -> None:
        """Make the run fail when any task did, though those after it went on."""
        raise AirflowFailException("a task of this run failed: see the red ones")

    list(dag.tasks) >> failed_tasks()
