"""Once a week: compact the lake's Delta tables and remove files that no version of the last days needs.

Runs beside `user_analytics` without harm: Delta's commits are atomic, and publishing falls back to the whole table
where a table's history is gone.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param
from spark_jobs import SparkJobOperator

with DAG(
    "user_analytics_maintenance",
    doc_md=__doc__,
    schedule="@weekly",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001 - Airflow's default zone is UTC
    catchup=False,
    max_active_runs=1,
    default_args={
        "owner": "analytics",
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=6),
    },
    params={
        "keep_days": Param(
            30, type="integer", minimum=7, maximum=36_500, description="Days of history to keep"
        )
    },
    tags=["user-analytics", "spark", "maintenance"],
):
    SparkJobOperator(
        task_id="maintain", job="maintain_lake.py", arguments=["--keep-days", "{{ params.keep_days }}"]
    )
