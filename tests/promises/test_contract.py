"""P11: what ``/openapi.json`` says is what is done, for requests that it allows and for those that it does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.generation import GenerationMode

from dulian.store import ModelStore
from tests.promises.corpus import files
from tests.promises.harness import Server, dulian_server

pytestmark = pytest.mark.weights

PICTURES = [
    "POST /v1/analyze",
    "POST /v1/batch",
    "POST /predict",
    "POST /api/analyze",
    "POST /analyze",
]
TENSORS = ["POST /v2/models/{model}/infer", "POST /v2/models/{model}/versions/{version}/infer"]
KEPT = ["GET /images/{picture_id}", "HEAD /images/{picture_id}"]
OF_INFERENCE = ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/{model}", "/v2/models/{model}/ready")
OF_VERSIONS = ("/v2/models/{model}/versions/{version}", "/v2/models/{model}/versions/{version}/ready")
OURS = ("/livez", "/readyz", "/metrics", "/v1/status", "/v1/models", "/v1/limits")
PLAIN = [f"GET {path}" for path in (*OURS, *OF_INFERENCE, *OF_VERSIONS)]
STREAM = "GET /v1/stream"

CHECKED = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
FEW = settings(max_examples=30, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def server(model_store: ModelStore) -> Iterator[Server]:
    with dulian_server(model_store) as started:
        yield started
        assert started.stop() == 0


@pytest.fixture(scope="module")
def document(server: Server) -> schemathesis.BaseSchema:
    load_all_checks()
    whole = list(files().values())
    cut = [data[: len(data) // 2] for data in whole]
    pictures = st.sampled_from(whole) | st.sampled_from(cut) | st.binary(max_size=40)
    schemathesis.openapi.media_type("image/*", pictures, aliases=["application/octet-stream"])
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def operations(document: schemathesis.BaseSchema) -> dict[str, schemathesis.APIOperation]:
    found = [result.ok() for result in document.get_all_operations()]
    return {f"{operation.method.upper()} {operation.path}": operation for operation in found}


def holds(case: schemathesis.Case, statuses: set[int]) -> None:
    """Ask, and compare the answer with what the document says of it."""
    response = case.call()
    statuses.add(response.status_code)
    # An answer in a millisecond is refused as out of reach; nothing else is the server's fault.
    hurried = "max_ms" in case.query or "X-Request-Timeout-Ms" in case.headers
    assert response.status_code < 500 or (response.status_code in (503, 504) and hurried)
    case.validate_response(response, checks=[check for check in CHECKS.get_all() if check.__name__ in CHECKED])


def test_the_document_has_every_route(document: schemathesis.BaseSchema) -> None:
    assert sorted(operations(document)) == sorted([*PICTURES, *TENSORS, *KEPT, *PLAIN, STREAM])
    names = {check.__name__ for check in CHECKS.get_all()}
    assert names >= set(CHECKED)


@pytest.mark.parametrize("name", [*PICTURES, *TENSORS, *KEPT, *PLAIN, STREAM])
def test_requests_that_are_allowed(name: str, document: schemathesis.BaseSchema) -> None:
    """P11: whatever may be sent is answered as it is written."""
    statuses: set[int] = set()

    @given(case=operations(document)[name].as_strategy(generation_mode=GenerationMode.POSITIVE))
    @FEW
    def check(case: schemathesis.Case) -> None:
        holds(case, statuses)

    check()
    # What a schema can say of Base64 is not enough for a picture.
    usual = {404} if name in KEPT else {426} if name == STREAM else {400} if name in TENSORS else {200}
    assert statuses >= usual


@pytest.mark.parametrize("name", [*PICTURES, *TENSORS])
def test_requests_that_are_not_allowed(name: str, document: schemathesis.BaseSchema) -> None:
    """P11: whatever must not be sent is refused, and in the way that is written."""
    statuses: set[int] = set()

    @given(case=operations(document)[name].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @FEW
    def check(case: schemathesis.Case) -> None:
        holds(case, statuses)

    check()
    assert 400 in statuses
