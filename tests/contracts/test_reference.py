import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_is_what_the_code_says():
    built = runpy.run_path(str(DOCS / "make_reference.py"))["build"]()
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == built, "run `python docs/make_reference.py`"
