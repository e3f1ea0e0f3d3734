"""What must never be committed: addresses of package registries, jars, secrets, paths of one machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Written in pieces, so that this file does not find itself.
REGISTRIES = re.compile(
    r"\b("
    + "|".join(
        [
            r"(test\.)?py" + r"pi\.(org|python\.org|io)",
            r"files\.python" + r"hosted\.org",
            r"repo\d*\.maven" + r"\.(apache\.)?org",
            r"maven-central[\w.-]*\.google" + r"apis\.com",
            r"registry\.np" + r"mjs\.org",
            r"proxy\.gol" + r"ang\.org",
            r"(registry-\d\.|index\.)?docker" + r"\.io",
            r"(quay|ghcr|gcr)" + r"\.io",
            r"[\w-]*(artifactory|nexus)[\w-]*\.[\w.]+",
        ]
    )
    + r")\b"
)
SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----|--(extra-)?index-url|--trusted-host"
)
MACHINE = re.compile(r"(?<![\w.])/(root|home/\w+|work)/")


@pytest.fixture(scope="module")
def committed() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git work tree")
    files = [ROOT / name for name in listed.decode().split("\0") if name]
    return [file for file in files if file.is_file()]


def lines_with(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    found = []
    for file in files:
        if file == Path(__file__) or b"\0" in (content := file.read_bytes())[:8000]:
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    return found


def test_no_registry_is_named(committed: list[Path]) -> None:
    # MinIO's images are at one place only; MINIO_IMAGE changes it.
    files = [file for file in committed if file.name != "docker-compose.yml"]
    assert lines_with(REGISTRIES, files) == []


def test_no_secret_and_no_index_option(committed: list[Path]) -> None:
    assert lines_with(SECRETS, [file for file in committed if file.name != "lock.sh"]) == []


def test_no_path_of_one_machine(committed: list[Path]) -> None:
    assert lines_with(MACHINE, [file for file in committed if file.suffix != ".md"]) == []


def test_no_jar_and_nothing_large(committed: list[Path]) -> None:
    assert [file.name for file in committed if file.suffix in (".jar", ".class", ".whl")] == []
    assert [file.name for file in committed if file.stat().st_size > 1_000_000] == []


def test_every_jar_of_the_list_has_a_checksum() -> None:
    modules = re.findall(r'name="([^"]+)" rev="([^"]+)"', (ROOT / "jars" / "ivy.xml").read_text())
    sums = [line.split() for line in (ROOT / "jars" / "SHA256SUMS").read_text().splitlines()]
    assert {f"{name}-{version}.jar" for name, version in modules} == {name for _, name in sums}
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest, _ in sums)


def test_every_pinned_package_has_hashes() -> None:
    for file in ROOT.glob("requirements*.txt"):
        requirements = re.split(r"\n(?=[a-z])", file.read_text())
        unhashed = [
            r.split()[0] for r in requirements if "==" in r.split("\n")[0] and "--hash=sha256:" not in r
        ]
        assert unhashed == [], file.name


def test_benchmark_and_test_packages_agree_with_the_runtime() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text()
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))

    runtime = pins("requirements.txt")
    for other in ("requirements-dev.txt", "requirements-bench.txt"):
        both = runtime.keys() & pins(other).keys()
        assert {n: pins(other)[n] for n in both} == {n: runtime[n] for n in both}


def test_memory_limits_of_the_stack_fit_8_gib() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert services["spark-worker"]["deploy"]["replicas"] == "${SPARK_WORKERS:-2}"
    mebibytes = 0
    for name, service in services.items():
        number, unit = int(service["mem_limit"][:-1]), service["mem_limit"][-1]
        # airflow-init ends before the rest of Airflow starts.
        copies = {"airflow-init": 0, "spark-worker": 2}.get(name, 1)
        mebibytes += copies * number * {"m": 1, "g": 1024}[unit]
    assert 0 < mebibytes <= 8 * 1024
