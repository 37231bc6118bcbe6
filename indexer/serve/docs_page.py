"""/docs: the OpenAPI description as one HTML page, with a form for every GET. It loads nothing and runs no script."""

from __future__ import annotations

import html
import json
from collections import Counter
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1rem; border-top: 1px solid #8886; padding-top: 1rem; margin: 2rem 0 .5rem; }
code { background: #8882; padding: .1em .3em; border-radius: 3px; }
label { display: grid; grid-template-columns: 10rem 14rem 1fr; gap: .75rem; margin: .25rem 0; }
small { color: #666; } input { font: inherit; } button { font: inherit; margin: .5rem 0; }
"""


def docs_page(description: dict[str, Any]) -> str:
    """The page.

    Args:
        description: what `FastAPI.openapi` returns.
    """
    title = _text(description["info"]["title"])
    shared = _shared_names(description)
    sections = "".join(
        _section(path, method, operation, shared)
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title} <small>{_text(description['info']['version'])}</small></h1>"
        f"<p>{_text(description['info']['description'])} For machines: "
        '<a href="/openapi.json">/openapi.json</a>, <a href="/metrics">/metrics</a>.</p>'
        f"{sections}</html>"
    )


def _shared_names(description: dict[str, Any]) -> set[str]:
    """Parameters that several addresses have: the filters. They come after what an address is about."""
    operations = [operation for one in description["paths"].values() for operation in one.values()]
    names = Counter(parameter["name"] for operation in operations for parameter in operation.get("parameters", []))
    return {name for name, count in names.items() if count > 1}


def _section(path: str, method: str, operation: dict[str, Any], shared: set[str]) -> str:
    statuses = ", ".join(f"{code} {_text(answer['description'])}" for code, answer in operation["responses"].items())
    head = f"<h2><code>{method.upper()} {_text(path)}</code> {_text(operation.get('summary', ''))}</h2>"
    if method != "get":
        return f"{head}<p>A JSON object with the same fields. <small>{statuses}</small></p>"
    parameters = sorted(operation.get("parameters", []), key=lambda one: one["name"] in shared)
    fields = "".join(_field(one) for one in parameters if one["in"] == "query")
    form = "" if "{" in path else f'<form action="{_text(path)}">{fields}<button>Try</button></form>'
    return f"{head}{form or fields}<p><small>{statuses}</small></p>"


def _field(parameter: dict[str, Any]) -> str:
    name, meaning = _text(parameter["name"]), _text(parameter.get("description", ""))
    default = parameter["schema"].get("default")
    shown = "" if default in (None, []) else _text(json.dumps(default))
    required = " required" if parameter.get("required") else ""
    field = f'<input name="{name}" placeholder="{shown}"{required}>'
    return f"<label><code>{name}</code>{field}<small>{meaning}</small></label>"


def _text(text: str) -> str:
    return html.escape(text)
