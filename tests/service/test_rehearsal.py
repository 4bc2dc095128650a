"""The requests that nobody sent leave nothing behind but warmth."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest
from tests.service.processes import running
from tests.service.services import MODEL, PATIENCE_S, FakeAnalysis, fake_service, wait_until

from dulian.service.cache import Keys, MemoryCache, SharedResults
from dulian.service.http import create_app
from dulian.service.server import DrainingServer
from dulian.service.start import bind
from dulian.store import ModelStore

WORKERS = 3


def test_it_works_every_thread_and_is_neither_counted_nor_kept() -> None:
    analysis = FakeAnalysis(0.02)
    kept = MemoryCache(2**20, 60.0)
    with fake_service(analysis, workers=WORKERS) as service, bind("127.0.0.1", 0) as listener:
        service.results = SharedResults(kept, Keys(MODEL), service.admission)
        server = DrainingServer(create_app(service), service, grace_s=0)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert len(analysis.seen) == WORKERS + 1
            assert len(analysis.threads) == WORKERS
            assert len(kept) == 0
            assert "dulian_faces_detected_count 0.0" in httpx.get(f"{url}/metrics").text
            status = httpx.get(f"{url}/v1/status").json()
            assert (status["requests_total"], status["latency_ms"]["p50"]) == (0, None)
            rehearsed = analysis.seen[0][0]
            assert httpx.post(f"{url}/v1/analyze", content=rehearsed).headers["x-cache"] == "miss"
            assert httpx.get(f"{url}/v1/status").json()["requests_total"] == 1
            assert "dulian_faces_detected_count 1.0" in httpx.get(f"{url}/metrics").text
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@pytest.mark.weights
def test_the_first_real_request_of_a_process_is_counted_as_one(model_store: ModelStore, samples: Path) -> None:
    with running(model_store, "--cache-mb", "1", "--idle-unload", "3600") as (_, url, _):
        assert httpx.get(f"{url}/v1/status").json()["requests_total"] == 0
        picture = (samples / "astronaut.png").read_bytes()
        answers = [httpx.post(f"{url}/v1/analyze", content=picture, timeout=PATIENCE_S) for _ in range(2)]
        assert [answer.headers["x-cache"] for answer in answers] == ["miss", "hit"]
        assert answers[0].json()["faces"] == answers[1].json()["faces"] != []
        assert httpx.get(f"{url}/v1/status").json()["requests_total"] == 2
