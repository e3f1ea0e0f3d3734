"""Have ready what the tests' services are made of, while other preparations run: MinIO takes minutes to build.

    python -m tests.install_services

What fails here is said and stops nothing: the test that asks for the service tries again, and fails with the reason.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bigquery_emulator import install_emulator
from tests.services import ServiceMissing, build_minio, object_store_plan


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as threads:
        services: dict[str, Callable[[], object]] = {"bigquery": install_emulator}
        # Only where tests will ask for a built one.
        if object_store_plan()[0] == "go":
            services["object store"] = lambda: build_minio(Path(folder) / "go.log")
        list(threads.map(_try, services, services.values()))


def _try(service: str, install: Callable[[], object]) -> None:
    try:
        install()
    except ServiceMissing as error:
        print(f"{service}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
