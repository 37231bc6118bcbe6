"""The colour videos of the query tests: an index whose right answers are known."""

from tests.indexer.query.conftest import colours, copied_colours  # noqa: F401 - fixtures
