"""What a stage receives from now on, by asking it again and again: each event once, however late its row is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from chalicelib.postern.contract.deliveries import first_event_id, moment_of
from chalicelib.postern.contract.errors import PosternError
from cli.local import Operator

# Ids are of the time of receipt, and rows are written later, in any order: so far back it looks for older ones, always
# for the ordinary delay, and now and then for that of a retry.
_OVERLAP_SECONDS = 15
_FAR_OVERLAP_SECONDS = 300
_FAR_EVERY = 30

_PAGE = 500
_MAX_WAIT_SECONDS = 15.0
_LOWEST = UUID(int=0)


class Feed:
    """The events of one source, or of all. Measures time by the events' ids, and by no clock.

    `say` gets a sentence when the stage does not answer, and when it does again; `wait` sleeps for the seconds given.
    """

    def __init__(
        self, on: Operator, source: str | None, *, say: Callable[[str], None], wait: Callable[[float], None]
    ) -> None:
        self._on = on
        self._source = source
        self._say = say
        self._wait = wait
        self._polls = 0
        self._away = False
        self._outages = 0
        self._newest = _LOWEST
        self._seen: set[UUID] = set()
        # Raises here and now when there is no such stage: nothing is to be waited for.
        last = self._page(before=None, after=None, limit=1)
        if last:
            self._newest = UUID(last[0]["id"])
            self._seen = {UUID(each["id"]) for each in self._since(_back(self._newest, _FAR_OVERLAP_SECONDS))}

    def poll(self) -> list[Mapping[str, Any]]:
        """What is new, the oldest first. Waits for as long as the stage does not answer."""
        far = self._polls % _FAR_EVERY == 0
        self._polls += 1
        since = _back(self._newest, _FAR_OVERLAP_SECONDS if far else _OVERLAP_SECONDS)
        new = [each for each in self.patiently(lambda: self._since(since)) if UUID(each["id"]) not in self._seen]
        ids = {UUID(each["id"]) for each in new}
        self._newest = max(self._newest, *ids) if ids else self._newest
        horizon = _back(self._newest, _FAR_OVERLAP_SECONDS)
        self._seen = {id for id in self._seen | ids if id >= horizon}
        return new[::-1]

    def show(self, id: str) -> dict[str, Any] | None:
        """The event, whole; None where it is gone, or where the stage answers but cannot give it."""
        refusals = 0
        while refusals < 3:
            outages = self._outages
            try:
                event: dict[str, Any] | None = self._on.perform({"action": "show", "id": id})["event"]
            except PosternError:
                # Either the stage is away, which the next question waits out, or it is the event's fault.
                self.patiently(lambda: self._page(before=None, after=None, limit=1))
                refusals += outages == self._outages
            else:
                return event
        return None

    def patiently(self, ask: Callable[[], list[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
        pause = 1.0
        while True:
            try:
                answer = ask()
            except PosternError as exc:
                if not self._away:
                    self._away = True
                    self._outages += 1
                    self._say(f"No answer; trying again until there is one. {exc}")
                self._wait(pause)
                pause = min(2 * pause, _MAX_WAIT_SECONDS)
                continue
            if self._away:
                self._away = False
                self._say("It answers again.")
            return answer

    def _since(self, after: UUID) -> list[Mapping[str, Any]]:
        """All of them, the newest first, page by page."""
        events: list[Mapping[str, Any]] = []
        while True:
            page = self._page(before=events[-1]["id"] if events else None, after=str(after), limit=_PAGE)
            events += page
            if len(page) < _PAGE:
                return events

    def _page(self, *, before: str | None, after: str | None, limit: int) -> list[Mapping[str, Any]]:
        asked = {"source": self._source, "before": before, "after": after, "limit": limit}
        page: list[Mapping[str, Any]] = self._on.perform({"action": "events", **asked})["events"]
        return page


def _back(id: UUID, seconds: int) -> UUID:
    """The smallest id from `seconds` before this one."""
    return first_event_id(moment_of(id) - timedelta(seconds=seconds))
