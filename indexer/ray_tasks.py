"""A function on each of some items by tasks of a Ray cluster; the results in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import ray
import ray.exceptions

from indexer.errors import VideoBertSearchError, WorkerError
from indexer.ray_cluster import ray_cluster

Item = TypeVar("Item")
Result = TypeVar("Result")
# A task runs on one core: as many at once as the cluster has. One whose node is lost is started again so often.
_CPUS_PER_TASK, _MAX_RETRIES = 1, 3


def map_on_ray(
    function: Callable[[Item], Result], items: Sequence[Item], *, address: str | None = None
) -> Iterator[Result]:
    """As the built-in `map`.

    Args:
        function: defined in a module; it and the items travel.
        items: plain data.
        address: see `ray_cluster`.

    Raises:
        VideoBertSearchError: what the function raised.
        WorkerError: there is no such cluster, or a task died.
    """
    with ray_cluster(address):
        task = ray.remote(num_cpus=_CPUS_PER_TASK, max_retries=_MAX_RETRIES)(function)
        results = [task.remote(item) for item in items]
        try:
            for result in results:
                yield ray.get(result)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, VideoBertSearchError):
                raise cause from error
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:300]
            raise WorkerError(
                f"a task stopped: {reason}; what was committed is kept, run the same command again"
            ) from error
