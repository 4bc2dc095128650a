"""``dulian serve``: the HTTP service, until a signal ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; DULIAN_CONFIG if not given.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 if not given.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 8080 if not given, 0 for any that is free.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="A port of its own for /metrics, /livez and /readyz; none if not given.")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(help="A port for gRPC (extra grpc), 0 for any that is free; none if not given.")
    ] = None,
    grpc_reflection: Annotated[
        bool, typer.Option("--grpc-reflection", help="Let anybody who reaches that port list what can be called.")
    ] = False,
    profile: Annotated[str | None, typer.Option(help="standard, accurate, classic or classic-article.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, onnxruntime, openvino, opencv, opencv-caffe.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="f32, or bf16 (extra openvino): faster, answers move a little.")
    ] = None,
    tiles: Annotated[
        bool, typer.Option("--tiles", help="Look for small faces in large pictures, in up to 25 looks: slower.")
    ] = False,
    workers: Annotated[
        str | None, typer.Option(help="Processes: a number, or auto (one for two cores); 1 if not given.")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Cores for each of them: a number, or auto (all there are), if not given.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="auto, latency (all cores on one picture) or throughput (a core for each).")
    ] = None,
    max_body_mb: Annotated[int | None, typer.Option(help="MiB that one request may have; 10 if not given.")] = None,
    deadline_s: Annotated[
        float | None, typer.Option(help="Seconds from a complete request to its answer; 5 if not given.")
    ] = None,
    max_queued: Annotated[
        int | None, typer.Option(help="Pictures that may wait for a thread of one process; 64 if not given.")
    ] = None,
    cache_mb: Annotated[
        int | None, typer.Option(help="MiB for results, given again for a while to who asks the same; 0 if not given.")
    ] = None,
    idle_unload: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Close networks that nobody has needed for so long; never if not given."),
    ] = None,
    model_dir: Annotated[Path | None, typer.Option(help="Folder of the models.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never fetch models.")] = False,
    keys_file: Annotated[
        Path | None, typer.Option(help="API keys, made by 'dulian keys create'; where there are any, one is needed.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A site whose pages may ask; repeat for more.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name that a proxy passes on as Host; repeat for more.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine although there is no key.")
    ] = False,
) -> None:
    """Answer over HTTP: POST a picture to /v1/analyze; /openapi.json describes the rest.

    Networks are loaded, verified and warm before the port opens. On SIGTERM it stops being ready, finishes what it
    has accepted, and ends with exit code 0. Exit code 3: a network is missing, or the port is taken.
    """
    from dulian.cli.models import make_store
    from dulian.service.start import serve as run
    from dulian.settings import MEGAPIXEL, raise_opencv_wall, read_settings

    settings = read_settings(
        config=config,
        host=host,
        port=port,
        metrics_port=metrics_port,
        grpc_port=grpc_port,
        grpc_reflection=grpc_reflection or None,
        profile=profile,
        engine=engine,
        precision=precision,
        tiles=tiles or None,
        workers=workers,
        threads=threads,
        mode=mode,
        max_body_mb=max_body_mb,
        deadline_s=deadline_s,
        max_queued=max_queued,
        cache_mb=cache_mb,
        idle_unload_s=idle_unload,
        model_dir=model_dir,
        offline=offline or None,
        keys_file=keys_file,
        cors_origins=cors_origin or None,
        allowed_hosts=allowed_host or None,
        insecure=insecure or None,
    )
    raise_opencv_wall(settings.max_pixels_mp * MEGAPIXEL)
    run(settings, lambda: make_store(settings.model_dir, offline=settings.offline))
