"""Azurite, Microsoft's own stand-in for Azure Blob Storage, and containers in it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from azure.storage.blob import BlobServiceClient

from tests.batch.stores import Bucket
from tests.deploy.programs import free_ports, is_open, needed, program

# As its documentation says; it is the same everywhere.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def connection_string(endpoint: str) -> str:
    parts = {"DefaultEndpointsProtocol": "http", "AccountName": ACCOUNT, "AccountKey": KEY}
    parts["BlobEndpoint"] = f"{endpoint}/{ACCOUNT}"
    return ";".join(f"{name}={value}" for name, value in parts.items())


@dataclass(frozen=True)
class AzureContainer(Bucket):
    scheme = "az"

    def _environment(self, endpoint: str) -> dict[str, str]:
        return {"AZURE_STORAGE_CONNECTION_STRING": connection_string(endpoint)}

    def put(self, name: str, data: bytes) -> None:
        client = azure_client(self.port).get_container_client(self.name)
        client.upload_blob(f"{self.prefix}/{name}", data, overwrite=True)

    def objects(self) -> dict[str, bytes]:
        client = azure_client(self.port).get_container_client(self.name)
        names: list[str] = list(client.list_blob_names())
        return {name.removeprefix(f"{self.prefix}/"): client.download_blob(name).readall() for name in names}


@cache
def azure_client(port: int) -> BlobServiceClient:
    """A client straight to the server."""
    return BlobServiceClient.from_connection_string(connection_string(f"http://127.0.0.1:{port}"))


@contextmanager
def azurite_process(folder: Path) -> Iterator[int]:
    """The port of a server that runs as long as the block, and tells nobody."""
    command = [needed("azurite-blob", "azurite", by="npm install --global"), "--inMemoryPersistence", "--silent"]
    (port,) = free_ports(1)
    command += ["--blobPort", str(port), "--skipApiVersionCheck", "--disableTelemetry"]
    with program(command, folder / "azurite.log", ready=lambda: is_open(port)):
        yield port


def new_container(port: int) -> AzureContainer:
    container = AzureContainer(f"dulian-{secrets.token_hex(8)}", port)
    azure_client(port).create_container(container.name)
    return container
