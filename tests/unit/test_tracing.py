"""Which texts are X-Ray's trace headers: SQS refuses a message that carries anything else as one."""

from __future__ import annotations

import pytest

from chalicelib.postern.contract.tracing import trace_header, trace_id

ROOT = "1-5759e988-bd862e3fe1be46a994272793"


@pytest.mark.parametrize(
    "header",
    [
        f"Root={ROOT}",
        f"Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=1",
        f"Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=0;Lineage=a87bd80c:1|68fd508a:5",
        f"Self=1-67891234-12456789abcdef012345678;Root={ROOT}",
    ],
)
def test_a_header_is_handed_on_as_it_is_and_names_its_trace(header: str) -> None:
    assert (trace_header(header), trace_id(header)) == (header, ROOT)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        ROOT,
        "Root=",
        "Parent=53995c3f42cd8ad8;Sampled=1",
        f"Root={ROOT}\n",
        f"Root={ROOT};Note=\x1b[2J",
        f"Root={ROOT};é=1",
        f"Root={ROOT}" + ";Sampled=1" * 100,
        "Root=1-5759E988-bd862e3fe1be46a99427279z",
    ],
)
def test_anything_else_is_not_handed_on(text: str | None) -> None:
    assert trace_header(text) is None


def test_without_a_header_there_is_no_trace() -> None:
    assert trace_id(None) is None
