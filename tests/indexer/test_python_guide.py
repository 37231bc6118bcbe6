"""docs/python.md: what it shows runs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.indexer.query.conftest import write_colours

GUIDE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_guide_runs(run_index, tmp_path, monkeypatch):
    (tmp_path / "videos").mkdir()
    for colour in ("red", "blue"):
        write_colours(tmp_path / "videos" / f"{colour}.mp4", colour, seconds_each=2)
    run_index(tmp_path / "videos", into="demo-data/index")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    exec("\n".join(blocks), names)
    assert len(names["frame"]) == 2  # type: ignore[arg-type]
    assert names["table"].num_rows == 2  # type: ignore[attr-defined]
    assert list(names["scores"].columns[-4:]) == ["animal", "building", "vehicle", "none of these"]  # type: ignore[attr-defined]
    assert names["part"].num_moments == 2  # type: ignore[attr-defined]
    assert names["mp4"][4:8] == b"ftyp"  # type: ignore[index]
