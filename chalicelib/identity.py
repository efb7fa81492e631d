"""When are two deliveries the same event? When their provider says so, and never otherwise: a swallowed event is lost.

The provider's own id decides, wherever it stands. Only where there is none do the bytes decide, and the topic where
that is not among them, and only for a window: the same words a week later are news (docs/decisions/0011-identity.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from chalicelib import naming
from chalicelib.deliveries import Headers
from chalicelib.naming import Place

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
    - `window`: seconds, of the ids too; None for the default, which bounds bytes alone.
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
    ) -> Identity:
        """The identity of an event. `topic` is its type, where that stands in a header."""
        if self.place == "none":
            return Identity(str(event_id))
        if signed_id is not None and not self.first:
            return Identity(naming.dedup_key(signed_id, body), self.window)
        found, in_header = self.place.find_where(headers, payload) if self.place else (None, False)
        if found is None and signed_id is not None:
            return Identity(naming.dedup_key(signed_id, body), self.window)
        if found is None and not body.strip():
            return Identity(str(event_id))  # nothing tells it from another
        if found is None:
            text = body if topic is None else topic.encode("utf-8", "surrogatepass") + b"\n" + body
            return Identity(naming.dedup_key(None, text), self.window or DEFAULT_WINDOW)
        if self.place and self.place.lacks_a_part(headers, payload):
            # What is left of the name may be another event's as well: the bytes decide.
            key = naming.dedup_key(f"{found}:{naming.dedup_key(None, body)}", body)
            return Identity(key, self.window or DEFAULT_WINDOW)
        if self.place and self.place.with_bytes:
            found = f"{found}:{naming.dedup_key(None, body)}"
        key = naming.dedup_key(found, body)
        if not in_header or self.header_is_safe:
            return Identity(key, self.window)
        return Identity(key, self.window, naming.dedup_key(None, body), self.same_body == "duplicate")
