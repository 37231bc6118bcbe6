"""Import rules that the contracts in pyproject.toml cannot express; `make check` holds the others."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What a search needs not: tests/indexer/cli/test_search.py holds it for a whole one.
SLOW_TO_LOAD = {"PIL", "av", "duckdb", "openvino", "pandas", "ray", "streamlit", "transformers"}
MAY_IMPORT_RAY = re.compile(r"indexer\.(pipeline|ray_\w+|serve\.ray_\w+)(\.|$)")


def _imports(source: str) -> Iterator[str]:
    """Top-level packages that `source` imports anywhere, in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_imports_finds_every_form_of_import() -> None:
    assert set(_imports("import ray.data as d\ndef f():\n    from ray import serve\nfrom . import x")) == {"ray"}


def test_only_the_pipeline_and_ray_modules_import_ray() -> None:
    files = [path for package in ("indexer", "model", "search_ui") for path in (ROOT / package).rglob("*.py")]
    importing = {_module_name(path) for path in files if "ray" in _imports(path.read_text(encoding="utf-8"))}
    assert {name for name in importing if not MAY_IMPORT_RAY.match(name)} == set()


def test_importing_the_query_wing_loads_no_ray() -> None:
    program = "import indexer.query, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_what_every_worker_loads_at_its_start_is_no_more_than_it_needs() -> None:
    loaded = {
        "indexer.ray_exchange": {"pyarrow", "numpy", "torch", *SLOW_TO_LOAD},
        "indexer.batches": {"torch", *SLOW_TO_LOAD},
        "indexer.ray_encoding": {"torch", "ray.data"},  # those that only decode, beside a GPU, never load PyTorch
    }
    for module, unneeded in loaded.items():
        program = f"import {module}, sys; print(sorted({unneeded} & sys.modules.keys()))"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
        assert (module, done.stdout) == (module, "[]\n")


def test_importing_the_index_loads_nothing_that_only_other_questions_need() -> None:
    program = f"import indexer.query.video_index, sys; print(sorted({SLOW_TO_LOAD} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_command_line_help_loads_no_heavy_library() -> None:
    program = """
import sys
from indexer.cli.app import main
sys.argv = ["videobert", "--help"]
try:
    main()
except SystemExit:
    pass
print(sorted({"torch", "ray", "faiss", "transformers", "streamlit"} & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]"
