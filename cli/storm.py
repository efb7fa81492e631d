"""`postern send --storm`: what an inbox gets on a bad day. Samples of every source, and among them repetitions, changed
repetitions, forgeries, nonsense, and events that handlers choke on.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from chalicelib.postern.contract.errors import PosternError
from chalicelib.postern.receiving.sources import Source, load_sources
from cli import output, samples
from cli.guides import guide
from cli.local import LocalRun
from cli.samples import Sample

DELIVERIES = 500
_AT_ONCE = 8
# Said again while it lasts, for longer storms.
_SAID_EVERY_SECONDS = 2.0

# The example's handler needs the repository.
_BODIES = {"nonsense": b'{"cut": "off', "choked on": b'{"ref": "refs/heads/main"}'}

Post = Callable[[str, Sample], tuple[int, str, str | None]]


@dataclass(frozen=True)
class _Delivery:
    what: str
    source: Source
    type: str
    url: str
    sample: Sample


def storm(number: int, run: LocalRun, post: Post) -> int:
    """Sends so many deliveries, a few at once, and says what they were and what they were answered with."""
    sources = [source for source in load_sources(run.sources_file).values() if _can_be_signed(source, run)]
    if not sources:
        raise PosternError(f"There is no source with a secret in {run.sources_file}.")
    print(f"A storm of {number:,} deliveries from {', '.join(source.name for source in sources)} …")
    began, said = time.monotonic(), time.monotonic()
    counts: Counter[tuple[str, int]] = Counter()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        deliveries = _deliveries(number, sources, run)
        for done, (what, status) in enumerate(_sent_by(pool, deliveries, post), start=1):
            counts[what, status] += 1
            if time.monotonic() - said > _SAID_EVERY_SECONDS:
                said = time.monotonic()
                print(f"  {done:,} of {number:,}", file=sys.stderr)
    rows = [{"what": what, "status": status, "number": f"{many:,}"} for (what, status), many in sorted(counts.items())]
    print(output.table(rows, {"what": "WHAT", "status": "ANSWER", "number": "NUMBER"}))
    print(f"\n{number / (time.monotonic() - began):.0f} a second. What became of them: {output.command('status')}")
    return 0


def _deliveries(number: int, sources: Sequence[Source], run: LocalRun) -> Iterator[_Delivery]:
    """Made one by one, so that no signature is old when it is sent."""
    chance = random.Random()  # nosec B311  # noqa: S311
    weights = [1 / (place + 1) for place in range(len(sources))]  # one sends most, as in life
    before: _Delivery | None = None
    for _ in range(number):
        [source] = chance.choices(sources, weights)
        what = chance.choices(
            ["event", "repetition", "changed repetition", "forgery", "nonsense", "choked on"],
            [82, 7, 1, 4, 2, 4],
        )[0]
        if what == "repetition" and before is not None:
            yield replace(before, what=what)
            continue
        if what == "choked on":
            source = next((each for each in sources if each.provider == "github"), source)
        body = _BODIES.get(what)
        known = guide(source.provider)
        type = known.default_type if body else chance.choice([*known.samples])
        if what == "changed repetition" and before is not None:
            # The same id where it stands in the body; a new event's where it does not.
            source, type, body = before.source, before.type, before.sample.body + b"\n"
        elif what.endswith("repetition"):
            what = "event"
        url = f"{run.url}/webhooks/{source.name}"
        sample = samples.sample(source, type, run.secret(source.name) or "", datetime.now(UTC), body, url)
        if what == "forgery":
            sample = replace(sample, body=sample.body + b" ")
        delivery = _Delivery(what, source, type, url, sample)
        if what == "event":
            before = delivery
        yield delivery


def _sent_by(pool: ThreadPoolExecutor, deliveries: Iterator[_Delivery], post: Post) -> Iterator[tuple[str, int]]:
    """In their order. None is made long before its turn comes."""
    under_way: deque[Future[tuple[str, int]]] = deque()
    for delivery in deliveries:
        under_way.append(pool.submit(_sent, delivery, post))
        if len(under_way) > _AT_ONCE:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _sent(delivery: _Delivery, post: Post) -> tuple[str, int]:
    status, _, _ = post(delivery.url, delivery.sample)
    return delivery.what, status


def _can_be_signed(source: Source, run: LocalRun) -> bool:
    return not source.needs_secret or bool(run.secret(source.name))
