"""X-Ray's trace header, by which a delivery and its processing are one trace; no SDK is needed to hand it on."""

from __future__ import annotations

import re

# As in "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"; Lambda adds more fields.
_HEADER = re.compile(
    r"(?:[A-Za-z]+=[0-9A-Za-z:|.-]+;)*?Root=1-[0-9a-f]{8}-[0-9a-f]{24}(?:;[A-Za-z]+=[0-9A-Za-z:|.-]+)*"
)
_MAX_HEADER_LENGTH = 500


def trace_header(found: str | None) -> str | None:
    """The header as it came, or None for what is not one: SQS refuses a message with a malformed one."""
    return found if found and len(found) <= _MAX_HEADER_LENGTH and _HEADER.fullmatch(found) else None


def trace_id(header: str | None) -> str | None:
    """The trace that a header, which is one, belongs to: its `Root`."""
    return header.partition("Root=")[2].partition(";")[0] if header else None
