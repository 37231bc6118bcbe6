"""The colour videos of the query tests: an index whose right answers are known."""

from tests.indexer.query.conftest import colour_index, colour_videos  # noqa: F401 - fixtures
