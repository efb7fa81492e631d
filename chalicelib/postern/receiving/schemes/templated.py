"""A signature in a header, over a template of the request. What the signature is, its subclasses say."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from chalicelib.postern.contract.deliveries import Delivery
from chalicelib.postern.contract.errors import InvalidSignature
from chalicelib.postern.receiving.schemes.base import (
    Draft,
    Encoding,
    Fetch,
    Proof,
    Scheme,
    Signed,
    Unit,
    check_age,
    fetch_nothing,
    required,
    wire,
    written,
)

_PLACE = re.compile(r"\{(body|timestamp|id|url|method)\}")


@dataclass(frozen=True, kw_only=True)
class Templated(Scheme):
    """A signature of `signed`, in a header.

    - `signed`: a template of `{body}`, `{timestamp}`, `{id}`, `{url}` and `{method}`, each exactly as it came.
    - `header`: where the signature stands, behind `prefix`. With a `separator` there may be several, and entries
      with another prefix are skipped; `numbered`, the header's name ends in `-1`, `-2`, …; `repeated`, it may come
      more than once.
    - `also`: other names of the header; the first that is there counts.
    - `timestamp`: `header:NAME`, `entry:PREFIX` (an entry of the signature's header) or `body:KEY` (of the JSON
      object that the body is, which is read for it after it is verified); in `unit`. It may lie `tolerance_seconds`
      back, and no more than an hour of them ahead.
    - `id`: the header with the id that `signed` covers.
    """

    header: str
    signed: str = "{body}"
    encoding: Encoding = "hex"
    prefix: str = ""
    separator: str = ""
    numbered: bool = False
    repeated: bool = False
    also: Sequence[str] = ()
    timestamp: str = ""
    unit: Unit = "s"
    tolerance_seconds: int = 300
    id: str = ""

    @property
    def covers_body(self) -> bool:
        return "{body}" in self.signed

    @property
    def signs_id(self) -> bool:
        return bool(self.id)

    @abstractmethod
    def _matching(self, message: bytes, candidates: Sequence[str], secrets: Sequence[str]) -> int:
        """The position of the secret that one of the candidates was made with; raises InvalidSignature."""

    @abstractmethod
    def _signature(self, message: bytes, secret: str) -> str:
        """The signature as it stands in the header, prefix and all."""

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        entries = self._entries(delivery)
        timestamp = self._timestamp(delivery, entries)
        if timestamp:
            check_age(timestamp, self.unit, delivery.received_at, self.tolerance_seconds)
        id = required(delivery.headers, self.id) if self.id else ""
        candidates = [entry for entry in entries if entry.startswith(self.prefix)] if self.separator else entries
        urls = self._urls(delivery)
        for at, url in enumerate(urls, 1):
            message = self._message(delivery.body, timestamp, id, url, delivery.method)
            try:
                secret = self._matching(message, candidates, secrets)
                break
            except InvalidSignature:
                if at == len(urls):
                    raise
        self._check_time_within(delivery)
        return Proof(secret, signed_id=id or None)

    def _urls(self, delivery: Delivery) -> list[str]:
        if "url" not in self._parts[1::2]:
            return [delivery.url]
        from chalicelib.postern.receiving.schemes.urls import spellings

        return spellings(delivery.url, delivery.query)

    def signed_time(self, delivery: Delivery) -> str:
        return self._timestamp(delivery, self._entries(delivery))

    def message(self, delivery: Delivery) -> bytes:
        """What was signed, wherever the signature is. Raises InvalidSignature where a part of it is not there."""
        entries = self._entries(delivery) if self.timestamp.startswith("entry:") else []
        id = required(delivery.headers, self.id) if self.id else ""
        timestamp = self._timestamp(delivery, entries)
        return self._message(delivery.body, timestamp, id, delivery.url, delivery.method)

    def sign(self, draft: Draft, secret: str) -> Signed:
        timestamp = written(draft.now, self.unit)
        message = self._message(draft.body, timestamp, draft.event_id, draft.url, draft.method)
        signature = self._signature(message, secret)
        where, _, name = self.timestamp.partition(":")
        headers = {}
        if where == "entry":
            signature = f"{name}{timestamp}{self.separator}{signature}"
        elif where == "header":
            headers[name] = timestamp
        if self.id:
            headers[self.id] = draft.event_id
        return Signed({self.header + ("-1" if self.numbered else ""): signature, **headers}, draft.body)

    def _entries(self, delivery: Delivery) -> list[str]:
        headers = delivery.headers
        if self.numbered:
            values = [value for n in range(1, 101) if (value := headers.get(f"{self.header}-{n}"))]
        elif self.repeated:
            values = headers.all(self.header)
        else:
            name = next((name for name in (self.header, *self.also) if headers.all(name)), self.header)
            values = [required(headers, name)]
        if not any(values):
            raise InvalidSignature("header_missing")
        if not self.separator:
            return values
        # Whether blanks follow a comma is the sender's to choose.
        between = self.separator.rstrip(" ") or self.separator
        return [entry.lstrip(" ") for value in values for entry in value.split(between)]

    def _timestamp(self, delivery: Delivery, entries: Sequence[str]) -> str:
        where, _, name = self.timestamp.partition(":")
        if where == "header":
            return required(delivery.headers, name)
        if where == "entry":
            found = [entry.removeprefix(name) for entry in entries if entry.startswith(name)]
            if len(found) != 1 or not found[0]:
                raise InvalidSignature("timestamp_missing")
            return found[0]
        return ""

    def _check_time_within(self, delivery: Delivery) -> None:
        """A time in the body is signed with it, and read after that."""
        where, _, name = self.timestamp.partition(":")
        if where != "body":
            return
        try:
            payload = json.loads(delivery.body, strict=False)
        except (ValueError, RecursionError):
            raise InvalidSignature("timestamp_missing") from None
        found = payload.get(name) if isinstance(payload, dict) else None
        if isinstance(found, bool) or not isinstance(found, int):
            raise InvalidSignature("timestamp_missing")
        check_age(str(found), self.unit, delivery.received_at, self.tolerance_seconds)

    @cached_property
    def _parts(self) -> list[str]:
        return _PLACE.split(self.signed)

    def _message(self, body: bytes, timestamp: str, id: str, url: str, method: str) -> bytes:
        given: Mapping[str, bytes] = {
            "body": body,
            "timestamp": wire(timestamp),
            "id": wire(id),
            "url": url.encode(),
            "method": method.encode(),
        }
        # Text and places by turns.
        return b"".join(given[part] if at % 2 else part.encode() for at, part in enumerate(self._parts))
