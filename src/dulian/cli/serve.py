"""``dulian serve``: the HTTP service, in this process, until a signal ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 if not given.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 8080 if not given, 0 for any that is free.")] = None,
    profile: Annotated[str | None, typer.Option(help="standard or classic.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, onnxruntime, openvino, opencv, opencv-caffe.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="f32, or bf16 (extra openvino): faster, answers move a little.")
    ] = None,
    workers: Annotated[str | None, typer.Option(help="Pictures analysed at once: a number, or auto.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the engine for each of them; 1 if not given.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="auto, latency (all cores on one picture) or throughput (a core for each).")
    ] = None,
    model_dir: Annotated[Path | None, typer.Option(help="Folder of the models.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never fetch models.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine although there are no keys yet.")
    ] = False,
) -> None:
    """Answer over HTTP: POST a picture to /v1/analyze; /openapi.json describes the rest.

    Networks are loaded, verified and warm before the port opens. On SIGTERM it stops being ready, finishes what it
    has accepted, and ends with exit code 0. Exit code 3: a network is missing, or the port is taken.
    """
    from dulian.cli.models import make_store
    from dulian.service.start import serve as run
    from dulian.settings import read_settings

    settings = read_settings(
        host=host,
        port=port,
        profile=profile,
        engine=engine,
        precision=precision,
        workers=workers,
        threads=threads,
        mode=mode,
        model_dir=model_dir,
        offline=offline or None,
        insecure=insecure or None,
    )
    run(settings, make_store(settings.model_dir, offline=settings.offline))
