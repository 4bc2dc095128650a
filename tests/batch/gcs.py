"""Buckets of a server that speaks as Google Cloud Storage does."""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from tests.batch.stores import Bucket, server_process


@dataclass(frozen=True)
class GcsBucket(Bucket):
    scheme = "gs"

    def _environment(self, endpoint: str) -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": endpoint}

    def put(self, name: str, data: bytes) -> None:
        asked = {"uploadType": "media", "name": f"{self.prefix}/{name}"}
        with gcs_client(self.port) as client:
            client.post(f"/upload/storage/v1/b/{self.name}/o", params=asked, content=data).raise_for_status()

    def objects(self) -> dict[str, bytes]:
        with gcs_client(self.port) as client:
            listed = client.get(f"/storage/v1/b/{self.name}/o").raise_for_status().json()
            names = [entry["name"] for entry in listed["items"]]
            urls = [f"/download/storage/v1/b/{self.name}/o/{quote(name, safe='')}?alt=media" for name in names]
            read = [client.get(url).raise_for_status().content for url in urls]
        return {name.removeprefix(f"{self.prefix}/"): data for name, data in zip(names, read, strict=True)}


def gcs_client(port: int) -> httpx.Client:
    """A client straight to the server."""
    return httpx.Client(base_url=f"http://127.0.0.1:{port}")


def gcs_process() -> AbstractContextManager[int]:
    """The port of a server, as long as the block."""
    return server_process("tests.batch.gcs_server")


def new_gcs_bucket(port: int) -> GcsBucket:
    bucket = GcsBucket(f"dulian-{secrets.token_hex(8)}", port)
    with gcs_client(port) as client:
        client.post("/storage/v1/b", json={"name": bucket.name}).raise_for_status()
    return bucket
