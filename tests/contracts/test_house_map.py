"""The map of the house in CONTRIBUTING.md names every module, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _modules_on_the_map() -> set[str]:
    """Paths of the .py files on the map, each below the last package named at the left edge."""
    package, paths = "", set()
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"    (\w+/)\s", line):
            package = match[1]
        elif match := re.match(r"      (\S+\.py)\s", line):
            paths.add(package + match[1])
    return paths


def test_map_names_every_module_and_nothing_else() -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for package in ("indexer", "model", "search_ui")
        for path in (ROOT / package).rglob("*.py")
        if path.stat().st_size  # an empty __init__.py has nothing to say
    }
    on_the_map = _modules_on_the_map()
    assert (sorted(files - on_the_map), sorted(on_the_map - files)) == ([], []), "add or remove these lines"
