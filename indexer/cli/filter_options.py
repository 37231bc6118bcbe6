"""The options of `videobert search` that say which moments are looked at."""

from __future__ import annotations

from functools import partial

import typer

_DATE = "ISO date or time, UTC unless it says otherwise."

_option = partial(typer.Option, None, show_default=False, rich_help_panel="Filters")

Video = _option(
    "--video",
    metavar="GLOB",
    help="Only videos whose file name, or with a slash whose path, fits: '*.mov', 'trips/*'.",
)
InVideo = _option("--in", metavar="VIDEO", help="Only within one video.")
MinDuration = _option(metavar="SECONDS", help="Only videos at least so long.")
MaxDuration = _option(metavar="SECONDS", help="Only videos at most so long.")
MinHeight = _option(metavar="PIXELS", help="Only videos at least so high, as 720.")
ModifiedAfter = _option(metavar="DATE", help=f"Only files modified then or later. {_DATE}")
ModifiedBefore = _option(metavar="DATE", help="Only files modified before.")
IndexedAfter = _option(metavar="DATE", help="Only videos indexed then or later.")
IndexedBefore = _option(metavar="DATE", help="Only videos indexed before.")
Label = _option(
    "--label",
    metavar="NAME[>=SCORE]",
    help="Only moments with this class among their labels. Repeatable: all must be there.",
)
Speech = _option("--speech/--no-speech", help="Only moments with, or without, a transcript.")
Language = _option(
    "--language",
    metavar="CODE",
    help="Only videos in this language: en, de. Repeatable, or separated by commas: any of them.",
)
Where = _option(
    "--where",
    metavar="CONDITION",
    help="'COLUMN=VALUE', or != < <= > >=, on a column of --metadata or of the table of videos. Repeatable.",
)
Metadata = _option(
    "--metadata", metavar="FILE", help="Your own .parquet, .csv or .tsv table, joined by its column path."
)
