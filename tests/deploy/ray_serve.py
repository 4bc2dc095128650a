"""The shipped application under a Ray Serve of its own, until its input ends: python -m tests.deploy.ray_serve PORT."""

from __future__ import annotations

import faulthandler
import signal
import sys

from tests.deploy.programs import DEPLOY

SECONDS = 400


def main() -> None:
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("it took too long"))
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(SECONDS + 10, exit=True)
    sys.path.insert(0, str(DEPLOY / "ray"))
    import ray
    from ray import serve as ray_serve
    from serve import app

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    ray_serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    ray_serve.run(app, blocking=False)
    print("ready", flush=True)  # noqa: T201
    sys.stdin.read()
    ray_serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
