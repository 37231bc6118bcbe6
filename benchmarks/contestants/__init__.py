"""Programs that `benchmarks.throughput` races against each other: each encodes the frames of a folder of videos.

    python -m benchmarks.contestants.NAME FOLDER --out FOLDER --workers N --rate HZ

Each prints one line of JSON, see `Finished`, and leaves in OUT what it stores, if it stores anything.
"""
