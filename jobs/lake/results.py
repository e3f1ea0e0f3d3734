"""Results for people and programs outside: files below `results/` in the lake."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from jobs.lake.objects import ObjectStore

FOLDER = "results"


def write_result(store: ObjectStore, name: str, content: dict[str, Any]) -> None:
    """Write `results/<name>` as JSON, whole or not at all, in place of what is there."""
    write_text(store, name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_text(store: ObjectStore, name: str, text: str) -> None:
    """Write `results/<name>`, whole or not at all, in place of what is there."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(name).name
        file.write_text(text, encoding="utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()
        store.put(file, f"{FOLDER}/{name}", digest, True, lambda sent: None)


def read_result(store: ObjectStore, name: str) -> dict[str, Any] | None:
    """What `results/<name>` holds, or None when there is no such file."""
    path = f"{FOLDER}/{name}"
    if store.digest(path) is None:
        return None
    with store.open(path) as stream:
        content: dict[str, Any] = json.loads(stream.read())
    return content
