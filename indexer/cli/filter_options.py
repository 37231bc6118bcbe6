"""The options of `videobert search` that say which moments are looked at."""

from __future__ import annotations

import typer

_PANEL = "Filters"
_DATE = "ISO date or time, UTC unless it says otherwise."

Video = typer.Option(
    None,
    "--video",
    metavar="GLOB",
    help="Only videos whose file name, or with a slash whose path, fits: '*.mov', 'trips/*'.",
    show_default=False,
    rich_help_panel=_PANEL,
)
InVideo = typer.Option(
    None, "--in", metavar="VIDEO", help="Only within one video.", show_default=False, rich_help_panel=_PANEL
)
MinDuration = typer.Option(
    None, metavar="SECONDS", help="Only videos at least so long.", show_default=False, rich_help_panel=_PANEL
)
MaxDuration = typer.Option(
    None, metavar="SECONDS", help="Only videos at most so long.", show_default=False, rich_help_panel=_PANEL
)
MinHeight = typer.Option(
    None, metavar="PIXELS", help="Only videos at least so high, as 720.", show_default=False, rich_help_panel=_PANEL
)
ModifiedAfter = typer.Option(
    None, metavar="DATE", help=f"Only files modified then or later. {_DATE}", show_default=False, rich_help_panel=_PANEL
)
ModifiedBefore = typer.Option(
    None, metavar="DATE", help="Only files modified before.", show_default=False, rich_help_panel=_PANEL
)
IndexedAfter = typer.Option(
    None, metavar="DATE", help="Only videos indexed then or later.", show_default=False, rich_help_panel=_PANEL
)
IndexedBefore = typer.Option(
    None, metavar="DATE", help="Only videos indexed before.", show_default=False, rich_help_panel=_PANEL
)
Label = typer.Option(
    None,
    "--label",
    metavar="NAME[>=SCORE]",
    help="Only moments with this class among their labels. Repeatable: all must be there.",
    show_default=False,
    rich_help_panel=_PANEL,
)
Speech = typer.Option(
    None,
    "--speech/--no-speech",
    help="Only moments with, or without, a transcript.",
    show_default=False,
    rich_help_panel=_PANEL,
)
Language = typer.Option(
    None,
    "--language",
    metavar="CODE",
    help="Only videos in this language: en, de. Repeatable, or separated by commas: any of them.",
    show_default=False,
    rich_help_panel=_PANEL,
)
Where = typer.Option(
    None,
    "--where",
    metavar="CONDITION",
    help="'COLUMN=VALUE', or != < <= > >=, on a column of --metadata or of the table of videos. Repeatable.",
    show_default=False,
    rich_help_panel=_PANEL,
)
Metadata = typer.Option(
    None,
    "--metadata",
    metavar="FILE",
    help="Your own .parquet, .csv or .tsv table, joined by its column path.",
    show_default=False,
    rich_help_panel=_PANEL,
)
