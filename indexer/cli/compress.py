"""`videobert quantize` and `videobert prune`: a smaller or faster model, compared with the one it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from indexer.cli import console
from indexer.cli.app import app

if TYPE_CHECKING:
    from indexer.compression.comparison import Figure
    from indexer.compression.compress import Compressed

_Model = typer.Argument(metavar="MODEL", help="Model preset or checkpoint to start from.", show_default=False)
_Out = typer.Option(..., "--out", metavar="FILE.safetensors", help="Checkpoint to write.", show_default=False)
_Data = typer.Option(
    None,
    metavar="DATA",
    help="Images or videos of yours, as `train` takes them: to calibrate on and, with captions, to measure recall.",
    show_default=False,
)


@app.command(epilog="Example: videobert quantize mini --out small.safetensors --data photos-with-captions.csv")
def quantize(
    model: str = _Model,
    out: str = _Out,
    parts: str | None = typer.Option(None, help="Of frames,fusion,text.", show_default="all; frames only with --data"),
    data: str | None = _Data,
    json: bool = console.JsonOption,
) -> None:
    """Write a model in 8-bit integers, a quarter of the size, and compare it with the original.

    The new file is a model of its own: use it as --model, and index anew.
    """
    from indexer.compression.compress import quantize as quantize_model

    _report(quantize_model(model, out, parts=None if parts is None else _split(parts), data=data), json=json)


@app.command(epilog="Example: videobert prune mini --out slim.safetensors --amount 0.2")
def prune(
    model: str = _Model,
    out: str = _Out,
    amount: float = typer.Option(0.1, help="Share of the feed-forward neurons to take out, 0 to 0.95."),
    parts: str = typer.Option("text", help="Of fusion,text."),
    data: str | None = _Data,
    json: bool = console.JsonOption,
) -> None:
    """Write a model with fewer neurons in its Transformers, and compare it with the original.

    The new file is a model of its own: use it as --model, and index anew.
    """
    from indexer.compression.compress import prune as prune_model

    _report(prune_model(model, out, amount=amount, parts=_split(parts), data=data), json=json)


def _split(parts: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in parts.split(",") if part.strip()))


def _report(done: Compressed, *, json: bool) -> None:
    from indexer.compression.compress import LARGEST_LOSS

    for problem in done.problems:
        console.say(f"left out: {problem.name}: {problem.reason}")
    if json:
        console.print_json(_to_dict(done))
    else:
        columns = ("", "before", "after", "change")
        console.print_table(columns, [_row(figure) for figure in done.figures], right=columns[1:])
    if not any(figure.name.startswith("recall") for figure in done.figures):
        console.say("recall was not measured: give --data with captions")
    if done.recall_lost > LARGEST_LOSS:
        console.say(f"it costs {done.recall_lost:.1f} points of recall@10: compress less, or fewer parts")
    console.say(f"{done.out} written: {', '.join(done.parts)} compressed; use it as --model {done.out}")


def _row(figure: Figure) -> tuple[str, str, str, str]:
    change = figure.change
    shown = "" if change is None else f"× {change:.2f}" if figure.kind == "ratio" else f"{change:+.1f}"
    before = "" if figure.before is None else _number(figure.before)
    return figure.name, before, _number(figure.after), shown


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) > 1 else f"{value:.4f}"


def _to_dict(done: Compressed) -> dict[str, object]:
    figures = [
        {"name": one.name, "before": one.before, "after": one.after, "change": one.change, "change_is": one.kind}
        for one in done.figures
    ]
    left_out = [{"name": problem.name, "reason": problem.reason} for problem in done.problems]
    return {
        "out": done.out,
        "fingerprint": done.fingerprint,
        "parts": list(done.parts),
        "figures": figures,
        "left_out": left_out,
    }
