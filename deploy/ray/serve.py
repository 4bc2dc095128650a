"""dulian as an application of Ray Serve, for those who run Ray already: serve run serve:app, in this folder.

A replica is a process with the whole service in it: the same routes, answers, errors, keys and limits, by the same
settings (DULIAN_*, in the environment of the replicas). What Ray Serve does is in front of it: connections, the choice
of a replica, replicas that come and go. Needs Ray 2.60 or later: pip install 'dulian[ray]' 'ray[serve]>=2.60'.

A replica turns away what it cannot do in time, and says when to come back. What more than that arrives waits in the
proxy, a bounded number of requests, and is turned away there.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from dulian.service.state import Service

# Pictures that wait in a replica: one takes tens of milliseconds on a core, so the last one waits for about a second.
MAX_QUEUED = 16
# More than a replica lets in, so that it is the replica that turns away: it knows how long to wait.
MAX_ONGOING = 4 * MAX_QUEUED
# No picture may take nearly as long.
PATIENCE_S = 30.0


@cache
def service() -> Service:
    """The service of this process, warm; one thread, because a replica has one CPU.

    Raises:
        BackendError: Networks are missing or damaged, or answer otherwise than they must.
    """
    from dulian.machine import tune_malloc
    from dulian.quiet import forbid_reports
    from dulian.service.start import Share, with_keys_file
    from dulian.service.worker import open_service
    from dulian.settings import MEGAPIXEL, guard_opencv, raise_opencv_wall, read_settings
    from dulian.store import ModelStore

    guard_opencv()
    forbid_reports()
    tune_malloc()
    settings = with_keys_file(read_settings())
    raise_opencv_wall(settings.max_pixels_mp * MEGAPIXEL)
    settings = settings.model_copy(update={"max_queued": min(settings.max_queued, MAX_QUEUED)})
    store = ModelStore(model_dir=settings.model_dir and settings.model_dir.expanduser(), offline=settings.offline)
    return open_service(settings, store, Share(threads=1))


def build() -> ASGIApp:
    """The application; called in a replica."""
    from dulian.service.http import create_app

    return create_app(service(), metrics=False)


@serve.deployment(
    name="dulian",
    max_ongoing_requests=MAX_ONGOING,
    max_queued_requests=MAX_ONGOING,
    backpressure_config=BackpressureConfig(retry_after_s=2),
    # One request computes and one waits: with more of them for a while, another replica is worth its memory.
    autoscaling_config=AutoscalingConfig(
        min_replicas=1, max_replicas=8, target_ongoing_requests=2, upscale_delay_s=10, downscale_delay_s=300
    ),
    ray_actor_options={"num_cpus": 1, "memory": 600 * 2**20},
    health_check_period_s=5,
    health_check_timeout_s=10,
    graceful_shutdown_timeout_s=20,
)
@serve.ingress(build)
class Dulian:
    """A replica."""

    def __init__(self) -> None:
        service()

    def check_health(self) -> None:
        """Asked by Ray Serve, which replaces a replica that fails it three times.

        Raises:
            RuntimeError: One picture has kept the thread busy for far longer than any may take.
        """
        longest = service().pool.longest_at_work()
        if longest is not None and (seconds := time.monotonic() - longest[1]) > PATIENCE_S:
            raise RuntimeError(f"one picture has been computed for {seconds:.0f} seconds")


app = Dulian.bind()
