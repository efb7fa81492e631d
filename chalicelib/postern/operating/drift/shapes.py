"""The shape of a type of events: which fields its payloads have, of which JSON types; and what departs from it.

Pure. A shape is a tree of places, and a step leads from one to the next: `.name` to a field of an object, `[]` to the
elements of a list, `*` to the values of a map, whose keys are data (ids, say) and no names. A place has no opinion of
what it has seen too little of: each is learned for some events before anything in it is a finding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any

# An object or a field is learned after this many events, and a field is missing after as many without it.
LEARNED_AFTER = 20
MISSING_AFTER = 20
# "In nearly all": this share of the events that could have had it.
_EXPECTED = 0.95

# Payloads are anybody's: what is looked at of one, and kept of all, is bounded.
MAX_PLACES = 1_000
_DEEPEST = 12
_MAX_ELEMENTS = 100
_MAX_FIELDS = 256
_MAX_VALUES = 50_000
_MAX_NAME_LENGTH = 64
_MAX_PATH_LENGTH = 200

# An object is a map when at least this many of its fields, and most of them, hardly ever came again.
_MAP_FROM = 12
_HARDLY_EVER = 0.2
_SETTLED_AFTER = 5

_ID = re.compile(
    r"\d+"
    r"|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|(?=.*\d)[0-9a-f]{12,}"
    r"|\d{4}-\d\d-\d\d.*"
    r"|.*@.*\..*"
    r"|(?:\w*[_-])?(?=[A-Za-z0-9]*\d)(?=[A-Za-z0-9]*[A-Za-z])[A-Za-z0-9]{14,}",
    re.ASCII | re.DOTALL,
)
_PLAIN = re.compile(r"[\w$@/-]+")


class Kind(StrEnum):
    NEW = "new"
    MISSING = "missing"
    RETYPED = "retyped"


@dataclass(frozen=True)
class Finding:
    """A departure from the shape. `event` is the first that had, or lacked, it; `was` and `became` are JSON types."""

    kind: Kind
    path: str
    event: str
    was: tuple[str, ...] = ()
    became: tuple[str, ...] = ()


@dataclass
class Field:
    """What is known of one place: in `of` events it could have been, in `seen` it was, and in the last `lacking` not.

    `objects`: in how many events it was an object, which is how well its fields are known.
    """

    types: set[str] = field(default_factory=set)
    seen: int = 0
    of: int = 0
    lacking: int = 0
    lacking_since: str | None = None
    missing: bool = False
    objects: int = 0
    is_map: bool = False
    steps: dict[str, Field] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "types": sorted(self.types),
            "seen": self.seen,
            "of": self.of,
            **({"lacking": self.lacking, "since": self.lacking_since} if self.lacking else {}),
            **({"missing": True} if self.missing else {}),
            **({"objects": self.objects} if self.objects else {}),
            **({"map": True} if self.is_map else {}),
            **({"steps": {step: place.to_json() for step, place in self.steps.items()}} if self.steps else {}),
        }

    @classmethod
    def from_json(cls, known: Mapping[str, Any]) -> Field:
        return cls(
            types=set(known["types"]),
            seen=known["seen"],
            of=known["of"],
            lacking=known.get("lacking", 0),
            lacking_since=known.get("since"),
            missing=known.get("missing", False),
            objects=known.get("objects", 0),
            is_map=known.get("map", False),
            steps={step: cls.from_json(place) for step, place in known.get("steps", {}).items()},
        )

    def __len__(self) -> int:
        """How many places there are from here on."""
        return 1 + sum(map(len, self.steps.values()))

    def __bool__(self) -> bool:
        return True


def learn(shape: Field, events: Iterable[tuple[str, Any]]) -> list[Finding]:
    """Takes these events' ids and payloads, the oldest first, into `shape`; what departed from it, each once.

    A field of what turns out to be a map on the way is no finding.
    """
    lesson = _Lesson(shape)
    for id, payload in events:
        lesson.take(id, payload)
    return [finding for trail, finding in lesson.findings if finding.kind is not Kind.NEW or _leads(shape, trail)]


def paths(shape: Field) -> Iterator[tuple[str, Field]]:
    """Every place but the whole, with its path; in the order of their names."""
    return _paths(shape, ())


def path_of(trail: Iterable[str]) -> str:
    """As people read it: `data.lines[].amount`, `$` for the payload as a whole. A long one is cut."""
    path = "".join(_readable(step) for step in trail).removeprefix(".") or "$"
    return path if len(path) <= _MAX_PATH_LENGTH else path[: _MAX_PATH_LENGTH - 1] + "…"


def _paths(place: Field, trail: tuple[str, ...]) -> Iterator[tuple[str, Field]]:
    for step, next_place in sorted(place.steps.items()):
        yield path_of((*trail, step)), next_place
        yield from _paths(next_place, (*trail, step))


def _readable(step: str) -> str:
    if step == "[]":
        return step
    if step == "*":
        return ".*"
    name = step[1:]
    return f".{name}" if _PLAIN.fullmatch(name) else f".{json.dumps(name, ensure_ascii=False)}"


def _leads(place: Field, trail: tuple[str, ...]) -> bool:
    for step in trail:
        if step not in place.steps:
            return False
        place = place.steps[step]
    return True


@dataclass
class _Sketch:
    """One payload's own shape: the elements of a list, and the values of a map, are one place."""

    types: set[str] = field(default_factory=set)
    is_map: bool = False
    steps: dict[str, _Sketch] = field(default_factory=dict)


class _Pencil:
    """Draws one payload. `whole` is False once there was more of it than is looked at."""

    def __init__(self) -> None:
        self.whole = True
        self._left = _MAX_VALUES

    def draw(self, value: Any, into: _Sketch, depth: int = 0) -> None:
        into.types.add(_type_of(value))
        if depth == _DEEPEST:
            return
        if isinstance(value, dict):
            large = len(value) > _MAX_FIELDS
            into.is_map = into.is_map or large
            for key, item in islice(value.items(), _MAX_FIELDS):
                name = key[:_MAX_NAME_LENGTH]
                step = "*" if large or _ID.fullmatch(name) else f".{name}"
                if not self._draw_next(item, into, step, depth):
                    return
        elif isinstance(value, list):
            self.whole = self.whole and len(value) <= _MAX_ELEMENTS
            for item in islice(value, _MAX_ELEMENTS):
                if not self._draw_next(item, into, "[]", depth):
                    return

    def _draw_next(self, value: Any, into: _Sketch, step: str, depth: int) -> bool:
        if not self._left:
            self.whole = False
            return False
        self._left -= 1
        self.draw(value, into.steps.setdefault(step, _Sketch()), depth + 1)
        return True


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array" if isinstance(value, list) else "number"


class _Lesson:
    def __init__(self, shape: Field) -> None:
        self.findings: list[tuple[tuple[str, ...], Finding]] = []
        self._shape = shape
        self._room = MAX_PLACES - len(shape)

    def take(self, id: str, payload: Any) -> None:
        pencil, sketch = _Pencil(), _Sketch()
        pencil.draw(payload, sketch)
        self._shape.of += 1
        self._meet(self._shape, sketch, (), id, whole=pencil.whole)

    def _meet(self, place: Field, sketch: _Sketch, trail: tuple[str, ...], id: str, *, whole: bool) -> None:
        self._compare_types(place, sketch, trail, id)
        place.seen += 1
        learned = place.objects >= LEARNED_AFTER
        if "object" in sketch.types:
            place.objects += 1
            if sketch.is_map and not place.is_map:
                self._make_map(place)
            if place.is_map:
                _fold_sketch(sketch)
            if whole:
                self._note_lacking(place, sketch, trail, id)
        for step, part in sketch.steps.items():
            if step not in place.steps:
                if self._room <= 0:
                    continue
                self._room -= 1
                place.steps[step] = Field()
                if learned and step != "[]":
                    found = Finding(Kind.NEW, path_of((*trail, step)), id, became=tuple(sorted(part.types)))
                    self.findings.append(((*trail, step), found))
            known = place.steps[step]
            known.of += 1
            known.lacking, known.lacking_since = 0, None
            self._meet(known, part, (*trail, step), id, whole=whole)
        if not place.is_map and _looks_like_a_map(place):
            self._make_map(place)

    def _compare_types(self, place: Field, sketch: _Sketch, trail: tuple[str, ...], id: str) -> None:
        was, became = place.types - {"null"}, sketch.types - place.types - {"null"}
        if was and became and place.seen >= LEARNED_AFTER:
            found = Finding(Kind.RETYPED, path_of(trail), id, tuple(sorted(was)), tuple(sorted(became)))
            self.findings.append((trail, found))
        place.types |= sketch.types

    def _note_lacking(self, place: Field, sketch: _Sketch, trail: tuple[str, ...], id: str) -> None:
        for step, known in place.steps.items():
            if step in sketch.steps or not step.startswith("."):
                continue
            known.of += 1
            known.lacking += 1
            known.lacking_since = known.lacking_since or id
            before = known.of - known.lacking
            expected = before >= LEARNED_AFTER and known.seen >= _EXPECTED * before
            if known.lacking >= MISSING_AFTER and expected and not known.missing:
                # Once and for all: a field that went and came back is optional.
                known.missing = True
                found = Finding(
                    Kind.MISSING, path_of((*trail, step)), known.lacking_since, was=tuple(sorted(known.types))
                )
                self.findings.append(((*trail, step), found))

    def _make_map(self, place: Field) -> None:
        before = len(place)
        place.is_map = True
        _fold(place)
        self._room += before - len(place)


def _fold(place: Field) -> None:
    for step in [step for step in place.steps if step.startswith(".")]:
        _merge(place.steps.setdefault("*", Field()), place.steps.pop(step))


def _fold_sketch(sketch: _Sketch) -> None:
    for step in [step for step in sketch.steps if step.startswith(".")]:
        _merge_sketch(sketch.steps.setdefault("*", _Sketch()), sketch.steps.pop(step))


def _looks_like_a_map(place: Field) -> bool:
    fields = [known for step, known in place.steps.items() if step.startswith(".")]
    if len(fields) < _MAP_FROM:
        return False
    rare = sum(known.of >= _SETTLED_AFTER and known.seen <= _HARDLY_EVER * known.of for known in fields)
    return rare >= _MAP_FROM and 2 * rare > len(fields)


def _merge(into: Field, other: Field) -> None:
    into.types |= other.types
    into.seen += other.seen
    into.of += other.seen
    into.objects += other.objects
    into.is_map = into.is_map or other.is_map
    for step, place in other.steps.items():
        _merge(into.steps.setdefault(step, Field()), place)
    if into.is_map:
        _fold(into)


def _merge_sketch(into: _Sketch, other: _Sketch) -> None:
    into.types |= other.types
    into.is_map = into.is_map or other.is_map
    for step, part in other.steps.items():
        _merge_sketch(into.steps.setdefault(step, _Sketch()), part)
