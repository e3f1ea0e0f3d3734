"""Ask the advisory service about every pinned package. `make audit`.

Exit: 1 when a package has a known vulnerability; 0 otherwise, also when the service cannot be reached, which is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300


def advisories(file: Path) -> tuple[list[str], int] | None:
    """Lines `package version: advisory (mended in …)` for a file of pinned requirements, and of how many packages the
    service knows nothing; None without an answer about any."""
    # With hashes there is nothing to resolve: no package is fetched.
    options = ("--requirement", str(file), "--require-hashes", "--disable-pip", "--format", "json")
    command = [str(Path(sys.executable).with_name("pip-audit")), *options, "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        packages = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        return None
    unknown = sum("skip_reason" in package for package in packages)
    if unknown == len(packages):
        return None
    lines = [
        f"{package['name']} {package['version']}: {found['id']}"
        + (f" (mended in {', '.join(found['fix_versions'])})" if found["fix_versions"] else "")
        for package in packages
        for found in package.get("vulns", [])
    ]
    return lines, unknown


def main() -> int:
    found: dict[str, list[str]] = {}
    # The smallest first: where the service cannot be reached, that is soon known.
    for file in sorted(ROOT.glob("requirements*.txt"), key=lambda file: file.stat().st_size):
        answer = advisories(file)
        if answer is None:
            print(
                f"audit: {file.name}: no answer, the advisory service cannot be reached; nothing more is asked"
            )
            break
        lines, unknown = answer
        unasked = f"; {unknown} packages are not known to the service" if unknown else ""
        print(f"audit: {file.name}: {len(lines) or 'no'} known vulnerabilities{unasked}")
        for line in lines:
            found.setdefault(line, []).append(file.name)
    for line, files in found.items():
        print(f"  {line}, in {', '.join(files)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
