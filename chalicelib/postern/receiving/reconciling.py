"""Use case: ask a provider what it sent, and fetch what did not arrive.

In steps, each of which leaves on record how far it came: whoever takes the next one, here or elsewhere, goes on from
there.

What is fetched goes the way of every delivery, and is the same event wherever it came twice. Where its signature is
among what the provider remembers it is verified; where it is not, the provider's own API vouches for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from chalicelib.postern.contract.deliveries import Delivery, Greeting, Headers
from chalicelib.postern.contract.errors import (
    Conflict,
    InvalidSignature,
    PosternError,
    QueueUnavailable,
    Refusal,
    SecretUnavailable,
)
from chalicelib.postern.contract.histories import NoCopy, ProviderBusy, ProviderRefuses
from chalicelib.postern.contract.metrics import Log
from chalicelib.postern.receiving.explain import ageless
from chalicelib.postern.receiving.histories import PROVIDERS, Api, Copy, History, history_of
from chalicelib.postern.receiving.ingest import Inbox, Receipt, accept
from chalicelib.postern.receiving.schemes.shared import VerifiedBefore
from chalicelib.postern.receiving.sources import API_TOKEN, Source

ORIGIN = "reconciled"

# What was sent so lately may be on its way here, or between the two functions.
_UNDER_WAY = timedelta(minutes=2)
# What a step may take beside its last question, and what is fetched between two words to the database.
_STEP_SECONDS = 4.0
_FETCHED_AT_ONCE = 20
# For the last step, when time runs out.
_LEAVING_SECONDS = 40.0
_AT_WORK = ("listing", "fetching")
# Of what went over the wire, packed perhaps.
_OF_THE_WIRE = ("content-length", "content-encoding")

# Has the database's part done: operating/reconciling/actions.py.
Perform = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """How the reconciliation stands after it; why nothing came of it, and for how long the provider wants to be left
    alone, where it says.
    """

    run: Mapping[str, Any]
    held: str | None = None
    seconds: float | None = None


class DatabaseAway(PosternError):
    """Whoever reaches the database does not answer."""


@dataclass(frozen=True)
class Reconciler:
    """`inbox`: the way of every delivery, on which nothing that is refused may be kept."""

    inbox: Inbox
    api: Api
    perform: Perform
    now: Callable[[], datetime]
    log: Log
    clock: Callable[[], float] = time.monotonic

    def begin(self, name: str, since: datetime | None, *, only_looks: bool, hourly: bool = False) -> Mapping[str, Any]:
        """The reconciliation, or the one of this source that runs already. Without `since`: of all that the provider
        remembers. Raises Conflict with a sentence where the source cannot be reconciled so, and SecretUnavailable.
        """
        _, history = self._known(name)
        self._token(name)
        now = self.now()
        if since is not None and now - since > history.keeps + timedelta(minutes=1):
            raise Conflict(f"{name}'s provider remembers {history.keeps.days} days, and no more: ask for no longer.")
        if since is not None and since > now:
            raise Conflict("That is yet to come.")
        asked = {"source": name, "since": (since or now - history.keeps).isoformat(), "only_looks": only_looks}
        return _run(self.perform({"action": "begin_reconciliation", **asked, "hourly": hourly}))

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """To whoever asks from elsewhere: `{"begin": {"source", "since", "only_looks"}}` or `{"step": ID}`. With the
        `reconciliation`, and what a Step has besides; or why not (`refused`), or why not now (`unavailable`).
        """
        try:
            if "step" in asked:
                run = _run(self.perform({"action": "show_reconciliation", "id": asked["step"]}))
                step = self.step(run)
            else:
                begin = asked["begin"]
                since = begin["since"] and datetime.fromisoformat(begin["since"])
                step = Step(self.begin(begin["source"], since, only_looks=begin["only_looks"]))
        except Conflict as exc:
            return {"refused": str(exc)}
        except (QueueUnavailable, SecretUnavailable) as exc:
            return {"unavailable": exc.reason}
        except DatabaseAway as exc:
            return {"unavailable": f"database: {exc}"}
        return {"reconciliation": step.run, "held": step.held, "seconds": step.seconds}

    def by_the_clock(self, time_left: Callable[[], float]) -> dict[str, int]:
        """Every source that is to be compared hourly: from three hours before the last time on. What is not done in
        its share of the time, or not now, goes on an hour later. How many gaps were found, and how many sources were
        not compared to the end.
        """
        done = {"reconcile_gaps": 0, "reconcile_failures": 0}
        names = [name for name, source in self.inbox.sources.items() if source.reconcile and source.reconcile.hourly]
        for number, name in enumerate(names):
            share = (time_left() - _LEAVING_SECONDS) / (len(names) - number)
            until = self.clock() + share
            run: Mapping[str, Any] = {}
            why, gaps = None, 0
            try:
                run = self.begin(name, self._since(name), only_looks=False, hourly=True)
                known, step = _gaps(run), Step(run)
                while run["state"] in _AT_WORK and step.held is None and self.clock() < until:
                    step = self.step(run)
                    run = step.run
                why, gaps = step.held or run["error"], _gaps(run) - known
                if why is None and run["state"] in _AT_WORK:
                    why = "It takes longer, and goes on an hour later."
            except (QueueUnavailable, SecretUnavailable) as exc:
                why = exc.reason
            except PosternError as exc:
                why = str(exc)
            except Exception as exc:  # a mistake of ours about one source is not to cost the others
                why = type(exc).__name__
            done["reconcile_gaps"] += gaps
            done["reconcile_failures"] += why is not None
            counts = {key: run.get(key) for key in ("state", "listed", "missing", "refused", "dead", "fetched")}
            metrics = {"reconcile_gaps": gaps, "reconcile_failures": int(why is not None)}
            self.log("source.reconciled", failed=why is not None, source=name, why=why, metrics=metrics, **counts)
        return done

    def _since(self, name: str) -> datetime | None:
        history = self._known(name)[1]
        found = self.perform({"action": "reconciled_to", "source": name})["since"]
        since = found and datetime.fromisoformat(found)
        return since if since and self.now() - since < history.keeps else None

    def step(self, run: Mapping[str, Any]) -> Step:
        """A page of the provider's, or some of what is missing. Raises QueueUnavailable and SecretUnavailable."""
        try:
            source, history = self._known(str(run["source"]))
            token = self._token(source.name)
            if run["state"] == "listing":
                return self._list(run, source, history, token)
            if run["state"] == "fetching":
                return self._fetch(run, source, history, token)
        except ProviderBusy as exc:
            return Step(run, f"The provider is not to be had now: {exc}.", exc.seconds)
        except (ProviderRefuses, NoCopy, Conflict) as exc:
            failed = {"action": "fail_reconciliation", "id": run["id"], "error": str(exc)[:500]}
            return Step(_run(self.perform(failed)))
        return Step(run)

    def _list(self, run: Mapping[str, Any], source: Source, history: History, token: str) -> Step:
        cursor, since = run["cursor"], datetime.fromisoformat(run["since"])
        if self.now() - datetime.fromisoformat(run["started_at"]) > history.keeps:
            raise ProviderRefuses("It has taken longer than the provider remembers.")
        page = history.page(self.api, _url(source), token, since=since, cursor=cursor)
        if page.next is not None and page.next == cursor:
            raise ProviderRefuses("The provider's pages go round in a circle.")
        entries = [
            {**asdict(entry), "at": entry.at.isoformat()} for entry in page.entries if entry.at <= page.now - _UNDER_WAY
        ]
        noted = {"id": run["id"], "cursor": cursor, "entries": entries, "next": page.next}
        return Step(_run(self.perform({"action": "note_history", **noted})))

    def _fetch(self, run: Mapping[str, Any], source: Source, history: History, token: str) -> Step:
        until = self.clock() + _STEP_SECONDS
        asked = self.perform({"action": "open_gaps", "id": run["id"], "limit": _FETCHED_AT_ONCE})
        run, settled = _run(asked), []
        try:
            for gap in asked["gaps"]:
                try:
                    became = self._became(gap["handle"], source, history, token)
                except ProviderBusy as exc:
                    if exc.seconds is None:
                        # It may be this one alone that it does not give.
                        settled.append({"key": gap["key"], "state": "again", "event_id": None, "note": str(exc)})
                    raise
                settled.append({"key": gap["key"], **became})
                if self.clock() > until:
                    break
        finally:
            # Whatever ended it: what was fetched before is fetched.
            if settled:
                run = _run(self.perform({"action": "settle_gaps", "id": run["id"], "settled": settled}))
        return Step(run)

    def _became(self, handle: str, source: Source, history: History, token: str) -> dict[str, Any]:
        try:
            result, note = self._accept(history.copy(self.api, _url(source), token, handle), source)
        except NoCopy as exc:
            return {"state": "failed", "event_id": None, "note": str(exc)}
        except (QueueUnavailable, SecretUnavailable):
            raise
        except Refusal as refusal:
            return {"state": "failed", "event_id": None, "note": f"refused: {refusal.reason}"[:500]}
        if isinstance(result, Greeting):
            return {"state": "no_event", "event_id": None, "note": None}
        return {"state": "fetched", "event_id": str(result.id), "note": note}

    def _accept(self, copy: Copy, source: Source) -> tuple[Receipt | Greeting, str | None]:
        """And what there is to say of it: whether these are the bytes that were sent."""
        signed = replace(source, scheme=ageless(source.scheme))
        likeliest = None
        for body in copy.bodies:
            likeliest = body if likeliest is None else likeliest
            try:
                return accept(_delivery(copy, body, source, self.now()), self._with(signed)), None
            except InvalidSignature:
                continue
        assert likeliest is not None
        trusted = replace(source, scheme=VerifiedBefore(signed_id=None), needs_secret=False, handshakes=())
        delivery = _delivery(copy, likeliest, source, self.now())
        return accept(delivery, self._with(trusted)), "its bytes as the provider's API writes them"

    def _with(self, source: Source) -> Inbox:
        return replace(self.inbox, sources={source.name: source})

    def _known(self, name: str) -> tuple[Source, History]:
        if name not in self.inbox.sources:
            raise Conflict(f"There is no source '{name}'.")
        source = self.inbox.sources[name]
        try:
            history = history_of(source.provider)
        except KeyError:
            raise Conflict(
                f"Provider '{source.provider}' has no history that can be read; {' and '.join(PROVIDERS)} have."
            ) from None
        if source.reconcile is None:
            raise Conflict(
                f"Source '{name}' does not say where its webhook stands at its provider: "
                f'`reconcile = {{ url = "{history.place}" }}` in the sources file does.'
            )
        return source, history

    def _token(self, name: str) -> str:
        try:
            token = self.inbox.secrets_of(name + API_TOKEN)[0].strip()
            if "PRIVATE KEY" not in token and not (token.isascii() and token.isprintable()):
                raise Conflict(f"The API token of '{name}' has characters that no token has.")
            return token
        except SecretUnavailable as exc:
            if exc.reason.startswith("secrets_unreachable"):
                raise
            right = self._known(name)[1].right
            raise Conflict(
                f"Source '{name}' has no API token: set {name}{API_TOKEN} beside its secret, to one that may do no "
                f"more than {right.removeprefix('to ')}."
            ) from None


def _url(source: Source) -> str:
    assert source.reconcile is not None
    return source.reconcile.url


def _gaps(run: Mapping[str, Any]) -> int:
    return int(run["missing"] + run["refused"])


def _run(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = answer.get("reconciliation")
    if found is None:
        raise Conflict(answer.get("refused", "There is no such reconciliation."))
    return found


def _delivery(copy: Copy, body: bytes, source: Source, now: datetime) -> Delivery:
    headers = [(name, value) for name, value in copy.headers if name.lower() not in _OF_THE_WIRE]
    return Delivery(
        source=source.name, headers=Headers(headers), body=body, received_at=now, url=source.url or "", origin=ORIGIN
    )
