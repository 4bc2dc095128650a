"""All objects of a store below a prefix, page by page, in an order that stays: no listing is ever held as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from dulian.batch.inputs.names import Place
from dulian.batch.inputs.stores import Found, Store, found_of
from dulian.batch.inputs.trying import REQUEST_S

_PAGE = 1000

_Page = tuple[list[Found], str | None]
"""Objects, and what the next page is asked for with."""


def list_objects(store: Store, place: Place) -> Iterator[Found]:
    """Objects of a bucket whose key begins with that of ``place``.

    Raises:
        FileNotFoundError: There is no such bucket.
        InputNotFoundError: The store refuses to list it.
        InputUnavailableError: A page failed at every try.
    """
    page_of = _PAGES.get(store.scheme)
    if page_of is None:
        yield from _walked(store, place)
        return
    token: str | None = None
    while True:
        found, token = store.ask(partial(page_of, store.filesystem, store.path(place), token), place.address)
        yield from found
        if token is None:
            return


def _s3_page(filesystem: Any, path: str, token: str | None) -> _Page:
    bucket, _, prefix = path.partition("/")
    after = {} if token is None else {"ContinuationToken": token}
    page = filesystem.call_s3(
        "list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=_PAGE, **after, timeout=REQUEST_S
    )
    found = [
        Found(key=one["Key"], size=one["Size"], version=one.get("ETag", "").strip('"') or None)
        for one in page.get("Contents", ())
    ]
    return found, page["NextContinuationToken"] if page.get("IsTruncated") else None


def _gcs_page(filesystem: Any, path: str, token: str | None) -> _Page:
    bucket, _, prefix = path.partition("/")
    wanted = {"prefix": prefix or None, "maxResults": _PAGE, "pageToken": token}
    page = filesystem.call("GET", "b/{}/o", bucket, json_out=True, timeout=REQUEST_S, **wanted)
    found = [
        Found(key=one["name"], size=int(one.get("size", 0)), version=one.get("generation"))
        for one in page.get("items", ())
    ]
    return found, page.get("nextPageToken")


def _azure_page(filesystem: Any, path: str, token: str | None) -> _Page:
    from azure.core.exceptions import ResourceNotFoundError
    from fsspec.asyn import sync

    container, _, prefix = path.partition("/")

    async def one_page() -> _Page:
        async with filesystem.service_client.get_container_client(container) as client:
            blobs = client.list_blobs(name_starts_with=prefix or None, results_per_page=_PAGE)
            pages = blobs.by_page(continuation_token=token)
            async for page in pages:
                found = [Found(key=blob.name, size=blob.size, version=blob.etag.strip('"')) async for blob in page]
                return found, pages.continuation_token or None
        return [], None

    try:
        page: _Page = sync(filesystem.loop, one_page, timeout=REQUEST_S)
    except ResourceNotFoundError as error:
        raise FileNotFoundError(container) from error
    return page


_PAGES: dict[str, Callable[[Any, str, str | None], _Page]] = {
    "s3": _s3_page,
    "gs": _gcs_page,
    "gcs": _gcs_page,
    "az": _azure_page,
    "abfs": _azure_page,
    "abfss": _azure_page,
}


def _walked(store: Store, place: Place) -> Iterator[Found]:
    """Folder by folder, for drivers without pages of their own."""
    root = store.path(Place(place.bucket, place.scheme))
    folder, _, _ = place.key.rpartition("/")
    pending = [f"{root}/{folder}" if folder else root]
    while pending:
        entries = store.ask(partial(store.filesystem.ls, pending.pop(), detail=True), place.address)
        entries.sort(key=lambda entry: entry["name"])
        for entry in entries:
            found = found_of(entry, entry["name"].removeprefix(f"{root}/"))
            if not found.is_folder and found.key.startswith(place.key):
                yield found
        pending += (entry["name"] for entry in reversed(entries) if entry["type"] == "directory")
