"""When are two deliveries the same event? When their provider says so, and never otherwise: a swallowed event is lost.

The provider's own id decides, wherever it stands. Only where there is none do the bytes decide, and the topic where
that is not among them, and only for a window: the same words a week later are news (docs/decisions/0011-identity.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from chalicelib.postern.contract.deliveries import Headers
from chalicelib.postern.receiving import naming
from chalicelib.postern.receiving.naming import Place

# For how many seconds equal bytes without an id are the same event, unless the source says otherwise.
DEFAULT_WINDOW = 86_400

SameBody = Literal["mark", "duplicate"]


@dataclass(frozen=True)
class Identity:
    """What an event is claimed under.

    `window`: for how many seconds, None for as long as keys are kept. `same_bytes`: what tells that its bytes came
    before under another id, where somebody may have sent them again; `refuse_same_bytes`: that they are then the same
    event.
    """

    key: str
    window: int | None = None
    same_bytes: str | None = None
    refuse_same_bytes: bool = False


@dataclass(frozen=True)
class Rule:
    """How a source's events are told apart.

    - `place`: where the id stands; None where the signature holds it, or there is none; "none" where each delivery is
      an event of its own, whatever it says. `first`: it goes before an id that the signature holds.
    - `header_is_safe`: an id in a header is as good as the body, since nothing or everything is signed.
    - `window`: for how many seconds bytes alone are a repetition; None for the default.
    """

    place: Place | Literal["none"] | None
    first: bool = False
    header_is_safe: bool = False
    window: int | None = None
    same_body: SameBody = "mark"

    def of(
        self,
        event_id: UUID,
        headers: Headers,
        payload: Any,
        body: bytes,
        *,
        signed_id: str | None,
        topic: str | None,
        item: int | None = None,
        equal_before: int = 0,
    ) -> Identity:
        """The identity of an event. `topic` is its type, where that stands in a header. Of a delivery that brings
        several, `item` is its place, and `equal_before` how many had its bytes before it, which are no echo.
        """
        if self.place == "none":
            return Identity(str(event_id))
        if signed_id is not None and not self.first:
            return Identity(naming.dedup_key(signed_id, body))
        found, in_header = self.place.find_where(headers, payload) if self.place else (None, False)
        if found is None and signed_id is not None:
            return Identity(naming.dedup_key(signed_id, body))
        bytes_key = naming.dedup_key(None, body)
        if found is None:
            return self._by_bytes(event_id, body, topic, equal_before)
        if in_header and item is not None:
            found = f"{found}:{item}"  # a delivery's id, of which each item is a part
        unsigned = in_header and not self.header_is_safe
        window = None
        if self.place and self.place.lacks_a_part(headers, payload):
            # What is left of the name may be another event's as well: the bytes decide.
            found, window = f"{found}:{bytes_key}", self._window
        elif self.place and self.place.with_bytes:
            found = f"{found}:{bytes_key}"
        key = naming.dedup_key(naming.own_name(found), body)
        return Identity(key, window, bytes_key if unsigned else None, unsigned and self._refuses)

    @property
    def _refuses(self) -> bool:
        return self.same_body == "duplicate"

    @property
    def _window(self) -> int | None:
        """Without one, where a captured delivery would be another event once it has lost its header."""
        has_headers = isinstance(self.place, Place) and self.place.in_headers and not self.header_is_safe
        return None if has_headers and self._refuses else self.window or DEFAULT_WINDOW

    def _by_bytes(self, event_id: UUID, body: bytes, topic: str | None, equal_before: int) -> Identity:
        """Nobody says which event it is. A topic in a header that nobody signed makes it another event, which is marked
        as with an id.
        """
        if not body.strip():
            return Identity(str(event_id))  # nothing tells it from another
        echo = f"\n{equal_before}".encode() if equal_before else b""
        bytes_key = naming.dedup_key(None, body + echo)
        if topic is None:
            return Identity(bytes_key, self._window)
        key = naming.dedup_key(None, topic.encode("utf-8", "surrogatepass") + b"\n" + body + echo)
        if self.header_is_safe:
            return Identity(key, self._window)
        return Identity(key, self._window, bytes_key, self._refuses)
