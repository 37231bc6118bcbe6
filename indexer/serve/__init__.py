"""An index as a web service: one FastAPI application, run in this process or in several by Ray Serve.

request → guard (limits, counts) → app (routes) → service (the open version, queues) → indexer.query
"""
