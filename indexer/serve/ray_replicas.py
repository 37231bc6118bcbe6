"""The same application in several processes, on this machine or a cluster: Ray Serve spreads the requests."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions

from indexer.errors import UsageError, WorkerError
from indexer.query.video_index import VideoIndex
from indexer.ray_cluster import ray_cluster
from indexer.serve.app import build_app
from indexer.serve.here import GRACE_S
from indexer.serve.service import Service
from indexer.serve.settings import ServeSettings
from indexer.serve.siblings import Board, Known, Report

_NAME = "videobert"
_MAX_REASON_CHARS = 300


def serve_on_ray(
    path: str,
    settings: ServeSettings,
    *,
    host: str,
    port: int,
    num_replicas: int,
    address: str | None,
    wait: Callable[[], None],
) -> None:
    """Answers requests from replicas until `wait` returns; then takes no more, and lets those in flight finish.

    Args:
        path: of the index, absolute or an s3:// URI: every node must reach it under this name.
        settings: limits of each replica.
        num_replicas: processes, each with the index open and one core.
        address: of the Ray cluster to join; None starts Ray on this machine.
        wait: called when requests are answered. Signals are to be caught there: Ray sets its own handlers before.

    Raises:
        IndexDirectoryError: there is no index.
        UsageError: the cluster has fewer cores than replicas are asked for.
        WorkerError: Ray or the replicas could not start.
    """
    VideoIndex.open(path)  # says so now if there is none
    with ray_cluster(address) as cluster:
        if num_replicas > cluster.num_cpus:
            raise UsageError(
                f"{num_replicas} replicas need as many cores, Ray has {cluster.num_cpus}: ask for fewer replicas"
            )
        for name in ("ray", "ray.serve"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            serve.start(http_options=HTTPOptions(host=host, port=port))
            board_name = f"{_NAME}-board-{uuid.uuid4().hex[:8]}"
            board = _start_board(board_name)
            deployment = _deployment(path, settings, board_name).options(num_replicas=num_replicas)
            serve.run(deployment.bind(), name=_NAME, route_prefix="/")
        except RuntimeError as error:
            raise WorkerError(f"the replicas could not start: {_reason() or error}") from error
        try:
            wait()
        finally:
            # Waits for requests in flight. Serve itself ends with the Ray that was started here; one that was joined
            # may have other applications.
            serve.delete(_NAME)
            ray.kill(board)


def _reason() -> str:
    """The last line of what the replicas said."""
    application = serve.status().applications.get(_NAME)
    texts = [deployment.message for deployment in application.deployments.values()] if application else []
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return lines[-1][:_MAX_REASON_CHARS] if lines else ""


def _start_board(name: str) -> Any:
    """One process where all replicas report; it ends with this one."""
    options = {"name": name, "namespace": _NAME, "num_cpus": 0, "max_restarts": -1}
    return ray.remote(Board).options(**options).remote()


def _deployment(path: str, settings: ServeSettings, board_name: str) -> Any:
    def build() -> Any:
        """Runs in each replica."""
        board = ray.get_actor(board_name, namespace=_NAME)

        async def exchange(report: Report) -> Sequence[Known]:
            known: Sequence[Known] = await board.exchange.remote(report)
            return known

        replica = serve.get_replica_context().replica_id.unique_id
        return build_app(Service(path, settings), replica, exchange)

    return serve.deployment(
        serve.ingress(build)(),
        name=_NAME,
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=settings.max_waiting,
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=GRACE_S,
    )
