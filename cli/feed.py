"""What an inbox receives, by asking it again and again for the next page of its stream: each event in the order in
which it was written, none left out, and none twice as long as this process lives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from chalicelib.postern.contract.errors import PosternError, UnknownAction
from cli.local import Operator

_PAGE = 500
_MAX_WAIT_SECONDS = 15.0
# So many questions in a row found some that are held back: a commit takes no time, so something is open for long.
_HELD_FOR_LONG = 10


class Feed:
    """The events of one source, or of all. `begin` says from where: the arguments of the stream's first page.

    `say` gets a sentence when the inbox does not answer, and when it does again; `wait` sleeps for the seconds given.
    """

    def __init__(
        self,
        on: Operator,
        source: str | None,
        *,
        begin: Mapping[str, Any],
        say: Callable[[str], None],
        wait: Callable[[float], None],
    ) -> None:
        self._on = on
        self._source = source
        self._say = say
        self._wait = wait
        self._away = False
        self._outages = 0
        self._held = 0
        # Raises here and now when there is no such stage, or it refuses: nothing is to be waited for.
        self._next: Mapping[str, Any] | None = self._page(begin)
        self.cursor: str = self._next["cursor"]
        self.more = True
        self.kept_since: str | None = self._next["kept_since"]

    def poll(self) -> list[Mapping[str, Any]]:
        """The next ones, and `more` says whether to ask again right away. Waits for as long as the inbox does not
        answer; raises UnknownAction when it refuses.
        """
        found = self._next or self.patiently(lambda: self._page({"cursor": self.cursor}))
        self._next = None
        self._held = self._held + 1 if found["held"] and found["cursor"] == self.cursor else 0
        self.cursor, self.more = found["cursor"], found["more"]
        if self._held == _HELD_FOR_LONG:
            self._say("Some are held back: a transaction that is open in the database may yet come before them.")
        events: list[Mapping[str, Any]] = found["events"]
        return events

    def show(self, id: str) -> dict[str, Any] | None:
        """The event, whole; None where it is gone. Raises PosternError where the stage answers but cannot give it."""
        refusals = 0
        while True:
            outages = self._outages
            try:
                event: dict[str, Any] | None = self._on.perform({"action": "show", "id": id})["event"]
            except PosternError:
                # Either the stage is away, which the next question waits out, or it is the event's fault.
                self.patiently(lambda: self._page({"cursor": self.cursor}, limit=1))
                refusals += outages == self._outages
                if refusals == 3:
                    raise
                self._wait(1.0)
            else:
                return event

    def patiently(self, ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        pause = 1.0
        while True:
            try:
                answer = ask()
            except UnknownAction:
                raise
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

    def _page(self, begin: Mapping[str, Any], limit: int = _PAGE) -> Mapping[str, Any]:
        return self._on.perform({"action": "stream", **begin, "source": self._source, "limit": limit})
