"""Writes docs/reference.md from the command line's own help and from the schema: `python docs/make_reference.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import typer.main

from indexer import schema
from indexer.cli.app import app, register_verbs
from indexer.export import SCHEMA

register_verbs()
TARGET = Path(__file__).with_name("reference.md")

_INTRODUCTION = """# Reference

This page is made by `python docs/make_reference.py`; a test fails when it is stale.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some videos failed. Data goes to stdout, everything else to
stderr.
"""


def build() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, "## Commands\n", *_commands(), "## The index directory\n", _DIRECTORY]
    parts.append(_table("`videos/`: the ledger, one row a video", schema.VIDEOS))
    parts.append(_table("`segments/`: one row a moment", schema.SEGMENTS))
    parts.append(_table("The file that `export` writes: one row a moment with its video's facts", SCHEMA))
    return "\n".join(parts)


_DIRECTORY = """    INDEX/
      index.json     model fingerprint, sampling settings, format version
      videos/        Delta table, the ledger: what it says exists, exists
      segments/      Delta table, the moments; a row counts only while the ledger holds its (video_id, batch_id)
                     with status "indexed"
      vectors/       FAISS files with checksums, each for one version of the ledger; they can be rebuilt from segments/
      keys/          ids and times of the moments of many segment files in one, so that an index opens at once; likewise

From outside, the visible moments are one join. With DuckDB and its `delta` extension:

```sql
SELECT v.uri, s.start_s, s.end_s, s.labels
FROM delta_scan('INDEX/segments') s
JOIN delta_scan('INDEX/videos') v ON s.video_id = v.video_id AND s.batch_id = v.batch_id
WHERE v.status = 'indexed'
```
"""


def _commands() -> list[str]:
    os.environ["COLUMNS"] = "100"
    group = typer.main.get_command(app)
    context = group.make_context("videobert", [], resilient_parsing=True)
    sections = []
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        help_text = command.get_help(command.make_context(name, [], parent=context, resilient_parsing=True))
        sections.append(f"### {name}\n\n```\n{help_text.rstrip()}\n```\n")
    return sections


def _table(title: str, columns: object) -> str:
    lines = [f"### {title}\n", "| column | type | meaning |", "|---|---|---|"]
    for field in columns:  # type: ignore[attr-defined]
        meaning = field.metadata[b"meaning"].decode()
        lines.append(f"| `{field.name}` | {field.type} | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(build(), encoding="utf-8")
