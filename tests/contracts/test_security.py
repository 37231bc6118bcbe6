"""Rules of SECURITY.md that the source itself can be asked about."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for package in ("indexer", "model", "search_ui") for path in (ROOT / package).rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "pd.read_pickle", "torch.hub.load"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> object:
    return next((getattr(word.value, "value", word.value) for word in call.keywords if word.arg == name), None)


def faults(source: str) -> list[str]:
    """What in a module could run code that came with data."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [name for name in names if name.split(".")[0] in UNSAFE_MODULES]
    for name, call in calls(tree):
        if name in UNSAFE_CALLS:
            found.append(name)
        if name == "torch.load" and keyword(call, "weights_only") is not True:
            found.append("torch.load without weights_only=True")
        if name in ("np.load", "numpy.load") and keyword(call, "allow_pickle") not in (None, False):
            found.append("np.load with allow_pickle")
        if keyword(call, "shell") not in (None, False):
            found.append(f"{name} with shell=True")
        if keyword(call, "trust_remote_code") not in (None, False):
            found.append(f"{name} with trust_remote_code")
        if keyword(call, "unsafe_allow_html") not in (None, False) or keyword(call, "unsafe_allow_javascript"):
            found.append(f"{name} with unsafe HTML")
    return found


def test_no_module_can_run_code_that_comes_with_data() -> None:
    assert {path.name: found for path in SOURCES if (found := faults(path.read_text(encoding="utf-8")))} == {}


def test_the_rule_finds_what_it_forbids() -> None:
    for line in (
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(command, shell=True)",
        "eval(text)",
        "st.markdown(text, unsafe_allow_html=True)",
    ):
        assert faults(line), line
    assert faults("torch.load(path, weights_only=True); np.load(path); subprocess.run([a])") == []


def test_the_page_listens_on_localhost_both_by_its_verb_and_by_its_own_settings() -> None:
    settings = (ROOT / "search_ui" / ".streamlit" / "config.toml").read_text(encoding="utf-8")
    assert re.search(r'^address = "localhost"', settings, re.MULTILINE)
    assert '"--server.address", "localhost"' in (ROOT / "indexer" / "cli" / "ui.py").read_text(encoding="utf-8")
