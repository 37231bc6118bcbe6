"""An evaluation as JSON, as tables for people, and as files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from indexer.errors import StorageError, UsageError
from indexer.evaluate.bootstrap import Figure
from indexer.evaluate.evaluation import Evaluation
from indexer.storage import write_whole

COLUMNS = ("task", "figure", "value", "95 % interval", "chance")
CLASS_COLUMNS = ("class", "videos", "predicted", "average precision", "precision", "recall")
METRICS, QUERIES, TABLE = "metrics.json", "queries.parquet", "report.md"
_IN_PLACES = ("median rank",)


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """What `--json` prints; answers to single queries are left to queries.parquet."""
    return {
        "index": evaluation.index,
        "data": evaluation.data,
        "model": evaluation.model,
        "videos": evaluation.videos,
        "moments": evaluation.moments,
        "rows": evaluation.rows,
        "skipped": [{"reason": reason, **dataclasses.asdict(rows)} for reason, rows in evaluation.skipped.items()],
        "tasks": {
            _key(name): {
                "questions": task.questions,
                "candidates": task.candidates,
                "metrics": {figure: value.to_dict() for figure, value in task.figures.items()},
                **({"classes": _class_dicts(evaluation, name)} if name in evaluation.classes else {}),
            }
            for name, task in evaluation.tasks.items()
        },
    }


def rows_of(evaluation: Evaluation) -> Iterator[tuple[str, str, str, str, str]]:
    """One row a figure, as texts in the order of `COLUMNS`; the task stands in its first row only."""
    for name, task in evaluation.tasks.items():
        title = f"{name}, {task.questions:,} × {task.candidates:,}"
        for figure, value in task.figures.items():
            unit = _unit(figure)
            yield title, figure, unit(value.value), _interval(figure, value), unit(value.chance)
            title = ""


def class_rows_of(evaluation: Evaluation, task: str) -> Iterator[tuple[str, ...]]:
    """One row a class, as texts in the order of `CLASS_COLUMNS`."""
    for row in evaluation.classes[task]:
        shares = (_percent(share) for share in (row.average_precision, row.precision, row.recall))
        yield row.label, str(row.videos), str(row.predicted), *shares


def notes_of(evaluation: Evaluation) -> list[str]:
    """What was left out, one line a reason."""
    return [
        f"{rows.count:,} of {evaluation.rows:,} rows: {reason}; first {rows.first}"
        for reason, rows in evaluation.skipped.items()
    ]


def markdown(evaluation: Evaluation) -> str:
    """All tables and notes as Markdown."""
    head = f"{evaluation.videos:,} videos, {evaluation.moments:,} moments, model `{evaluation.model}`"
    lines = ["# Evaluation", "", f"`{evaluation.index}` on `{evaluation.data}`: {head}.", ""]
    lines += _table(COLUMNS, rows_of(evaluation))
    for task in evaluation.classes:
        lines += ["", f"## {task[0].upper()}{task[1:]}", "", *_table(CLASS_COLUMNS, class_rows_of(evaluation, task))]
    if evaluation.skipped:
        lines += ["", "## Left out", "", *(f"- {note}" for note in notes_of(evaluation))]
    return "\n".join(lines) + "\n"


def write_files(evaluation: Evaluation, folder: str) -> list[str]:
    """Writes metrics.json, report.md and, where captions were asked, queries.parquet; returns their paths.

    Raises:
        UsageError: `folder` is a file.
        StorageError: a file cannot be written.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise UsageError(f"{folder!r} is a file: name a folder to write {METRICS} and {TABLE} into")
    contents = {
        METRICS: (json.dumps(to_dict(evaluation), indent=2, ensure_ascii=False) + "\n").encode(),
        TABLE: markdown(evaluation).encode(),
    }
    if evaluation.answers:
        contents[QUERIES] = _parquet(evaluation)
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_whole(place / name, content)
    except OSError as error:
        raise StorageError(f"the evaluation cannot be written to {folder!r}: {error.strerror or error}") from error
    return [str(place / name) for name in contents]


def _parquet(evaluation: Evaluation) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([dataclasses.asdict(answer) for answer in evaluation.answers]), sink)
    return bytes(sink.getvalue())


def _table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _class_dicts(evaluation: Evaluation, task: str) -> list[dict[str, Any]]:
    rows = (dataclasses.asdict(row) for row in evaluation.classes[task])
    return [{name: _known(value) for name, value in row.items()} for row in rows]


def _known(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 6)


def _key(task: str) -> str:
    return task.replace(" ", "_").replace("-", "_")


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f} %"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f}"


def figure_text(name: str, figure: Figure) -> str:
    """`71.1 % (95 % interval 57.8 % – 84.4 %)`."""
    return f"{_unit(name)(figure.value)} (95 % interval {_interval(name, figure)})"


def _interval(name: str, figure: Figure) -> str:
    unit = _unit(name)
    return "" if math.isnan(figure.low) else f"{unit(figure.low)} – {unit(figure.high)}"


def _unit(name: str) -> Callable[[float], str]:
    return _number if name in _IN_PLACES else _percent
