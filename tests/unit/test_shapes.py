"""What is learned of payloads, and what counts as a departure from it."""

from __future__ import annotations

import json
import string
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.postern.operating.drift.shapes import (
    LEARNED_AFTER,
    MAX_PLACES,
    MISSING_AFTER,
    Field,
    Finding,
    Kind,
    learn,
    path_of,
    paths,
)


class Lessons:
    """One shape, with events numbered from 0; between lessons it goes through JSON as it does through the database."""

    def __init__(self, *payloads: Any) -> None:
        self.shape = Field()
        self.number = 0
        assert self.take(*payloads) == []

    def take(self, *payloads: Any) -> list[Finding]:
        ids = [str(self.number + n) for n in range(len(payloads))]
        self.number += len(payloads)
        findings = learn(self.shape, zip(ids, payloads, strict=True))
        self.shape = Field.from_json(json.loads(json.dumps(self.shape.to_json())))
        return findings

    def found(self, *payloads: Any) -> list[tuple[str, str, str]]:
        return [(each.kind.value, each.path, each.event) for each in self.take(*payloads)]

    @property
    def paths(self) -> dict[str, set[str]]:
        return {path: place.types for path, place in paths(self.shape)}


def lots(payload: Any, number: int = LEARNED_AFTER) -> list[Any]:
    return [payload] * number


def test_nothing_is_a_finding_while_a_type_is_being_learned() -> None:
    assert Lessons(*[{f"field{n}": n} for n in range(LEARNED_AFTER)]).found() == []


def test_paths_are_as_people_write_them() -> None:
    lessons = Lessons({"data": {"object": {"lines": [{"amount": 1}, {"tax": None}]}}, "a.b": {"": True}})
    assert lessons.paths == {
        "data": {"object"},
        "data.object": {"object"},
        "data.object.lines": {"array"},
        "data.object.lines[]": {"object"},
        "data.object.lines[].amount": {"number"},
        "data.object.lines[].tax": {"null"},
        '"a.b"': {"object"},
        '"a.b".""': {"boolean"},
    }


def test_a_new_field_is_found_once_at_its_first_event() -> None:
    lessons = Lessons(*lots({"a": 1}))
    assert lessons.found({"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2}) == [("new", "b", "21")]
    assert lessons.found(*lots({"a": 1, "b": 2}), {"a": 1}) == []


def test_of_a_new_object_the_whole_is_the_finding() -> None:
    lessons = Lessons(*lots({"a": 1}))
    assert lessons.found({"a": 1, "b": {"c": {"d": 1}, "e": [{"f": 1}]}}) == [("new", "b", "20")]


def test_a_new_field_deep_inside_is_found() -> None:
    lessons = Lessons(*lots({"a": [{"b": {"c": 1}}]}))
    assert lessons.found({"a": [{"b": {"c": 1}}, {"b": {"c": 1, "d": 1}}]}) == [("new", "a[].b.d", "20")]


def test_an_object_that_is_seldom_there_is_learned_for_as_long_as_any() -> None:
    lessons = Lessons(*lots({"a": 1, "refund": None}, 100))
    assert lessons.found(*[{"a": 1, "refund": {f"x{n}": 1}} for n in range(5)]) == []


def test_a_list_that_was_always_empty_is_learned_when_it_has_something() -> None:
    assert Lessons(*lots({"a": []})).found(*lots({"a": [{"b": 1}]})) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, "1"), ("x", {"y": 1}), ({"y": 1}, [1]), (True, 0), ([1], 1)],
)
def test_another_type_is_found_once(before: Any, after: Any) -> None:
    lessons = Lessons(*lots({"a": before}))
    [found] = lessons.take({"a": before}, {"a": after}, {"a": after})
    assert (found.kind, found.path, found.event) == (Kind.RETYPED, "a", "21")
    assert lessons.take({"a": before}, {"a": after}) == []


def test_null_is_no_type_of_its_own() -> None:
    assert Lessons(*lots({"a": 1})).found({"a": None}, {"a": 1}) == []
    assert Lessons(*lots({"a": None})).found({"a": 1}, {"a": None}) == []
    lessons = Lessons(*lots({"a": 1}), {"a": None})
    [found] = lessons.take({"a": "x"})
    assert (found.was, found.became) == (("number",), ("string",))


def test_the_payload_as_a_whole_may_change_its_type() -> None:
    assert Lessons(*lots({"a": 1})).found([{"a": 1}]) == [("retyped", "$", "20")]


def test_a_field_that_is_gone_is_found_once_at_the_first_event_without_it() -> None:
    lessons = Lessons(*lots({"a": 1, "b": 1}, 30))
    assert lessons.found(*lots({"a": 1}, MISSING_AFTER - 1)) == []
    assert lessons.found(*lots({"a": 1}, 30)) == [("missing", "b", "30")]
    assert lessons.found(*lots({"a": 1, "b": 1}, 30), *lots({"a": 1}, 30)) == []


def test_a_field_that_was_in_nearly_all_counts_and_an_optional_one_does_not() -> None:
    events = [{"a": 1, **({"nearly": 1} if n % 40 else {}), **({"often": 1} if n % 5 else {})} for n in range(100)]
    assert Lessons(*events).found(*lots({"a": 1}, 60)) == [("missing", "nearly", "100")]


def test_of_an_object_that_is_gone_its_fields_are_not_missing_too() -> None:
    lessons = Lessons(*lots({"a": 1, "b": {"c": {"d": 1}}}))
    assert lessons.found(*lots({"a": 1}, 50)) == [("missing", "b", "20")]


def test_an_empty_list_does_not_lack_what_its_elements_have() -> None:
    assert Lessons(*lots({"a": [{"b": 1}]})).found(*lots({"a": []}, 50)) == []


def names(number: int) -> list[str]:
    """Words that look like anything but ids."""
    return [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in string.ascii_lowercase][:number]


@pytest.mark.parametrize("width", [1, 3, 20])
def test_a_map_of_ever_new_names_is_one_path_and_no_findings(width: int) -> None:
    keys = names(600)
    events = [{"map": {key: {"n": 1} for key in keys[n * width : (n + 1) * width]}} for n in range(600 // width)]
    lessons = Lessons(*lots({"map": {}}), *events)
    assert set(lessons.paths) == {"map", "map.*", "map.*.n"}
    assert lessons.found({"map": {"another": {"n": 1}}}) == []
    assert lessons.found({"map": {"another": {"n": "1"}}}) == [("retyped", "map.*.n", str(lessons.number - 1))]


def test_a_map_that_grows_slowly_is_found_out_after_a_dozen_names() -> None:
    lessons = Lessons(*lots({"map": {"first": 1}}))
    found = [
        finding for key in names(60) for finding in lessons.take(*lots({"map": {"first": 1}}, 5), {"map": {key: 1}})
    ]
    assert 0 < len(found) <= 14


@pytest.mark.parametrize(
    "key",
    ["17", "6f9619ff-8b86-d011-b42d-00cf4fc964ff", "cus_NffrFeUfNV2Hib", "0a1b2c3d4e5f", "2026-11-23", "a@example.com"],
)
def test_keys_that_are_ids_at_sight_are_one_path(key: str) -> None:
    assert Lessons({"by": {key: 1}}).paths == {"by": {"object"}, "by.*": {"number"}}


@pytest.mark.parametrize("key", ["amount", "address_line_1", "iso_3166_1_alpha2", "x509", "created-at", "deadbeef"])
def test_names_are_no_ids(key: str) -> None:
    assert key in Lessons({key: 1}).paths


def test_an_object_with_very_many_keys_is_a_map_at_sight() -> None:
    lessons = Lessons({"map": dict.fromkeys(names(300), 1)})
    assert set(lessons.paths) == {"map", "map.*"}


def test_a_version_with_many_new_fields_is_no_map() -> None:
    lessons = Lessons(*lots({"a": 1}))
    new = dict.fromkeys(names(30), 1)
    assert len(lessons.found(*lots({"a": 1, **new}, 50))) == 30
    assert len(lessons.paths) == 31


def test_many_kinds_of_optional_fields_beside_the_usual_ones_are_no_map() -> None:
    usual, seldom = dict.fromkeys(names(40)[:20], 1), names(40)[20:]
    lessons = Lessons(*[{**usual, seldom[n % 20]: 1} for n in range(400)])
    assert len(lessons.paths) in (1, 40)


def test_no_more_is_kept_than_so_many_places() -> None:
    wide = [{f"{a}{n}{b}": dict.fromkeys(names(200), 1) for a in "xyz" for b in "pq"} for n in range(3)]
    lessons = Lessons(*wide)
    assert len(lessons.shape) == MAX_PLACES
    assert lessons.take(*wide * 10) == []


def test_a_long_name_and_a_long_path_are_cut() -> None:
    payload: Any = 1
    for _ in range(11):
        payload = {"x" * 10_000: payload}
    lessons = Lessons(*lots(payload))
    assert max(map(len, lessons.paths)) == 200
    assert lessons.found({"y" * 10_000: 1}) == [("new", "y" * 64, "20")]


@pytest.mark.parametrize(
    "payload",
    [
        {f"key{n}": {"x": [n] * 100} for n in range(10_000)},
        [[[[list(range(100))] * 100] * 100] * 100] * 100,
        {"@" * 2_000_000 + "!": 1, "_a" * 1_000_000 + "!": 1},
        [{f"k{n}": {f"l{m}": [1] * 100 for m in range(250)}} for n in range(100)],
    ],
    ids=["keys", "lists", "names", "both"],
)
def test_hostile_payloads_cost_little(payload: Any) -> None:
    lessons = Lessons()
    started = time.process_time()
    lessons.take(payload)
    assert time.process_time() - started < 2
    assert len(lessons.shape) <= MAX_PLACES


def test_what_is_more_than_is_looked_at_lacks_nothing() -> None:
    lessons = Lessons(*lots({"lines": [{"a": 1, "b": 1}]}))
    assert lessons.found(*lots({"lines": [{"a": 1}] * 100 + [{"b": 1}]}, 50)) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=6),
    max_leaves=25,
)


@settings(deadline=None, max_examples=150)
@given(st.lists(VALUES, max_size=60))
def test_whatever_comes_is_learned_within_bounds_and_reported_once(payloads: list[Any]) -> None:
    lessons = Lessons()
    found = lessons.take(*payloads * 3)
    keys = [(each.kind, each.path, each.became) for each in found]
    assert len(keys) == len(set(keys))
    assert len(lessons.shape) <= MAX_PLACES
    assert all(place.seen <= place.of for _, place in paths(lessons.shape))
    again = lessons.shape.to_json()
    assert Field.from_json(json.loads(json.dumps(again))).to_json() == again


@given(st.lists(VALUES, min_size=1, max_size=40))
@settings(deadline=None, max_examples=100)
def test_what_was_there_before_is_no_finding(payloads: list[Any]) -> None:
    """Events that come again in a circle, from a time when everything was learned."""
    lessons = Lessons()
    lessons.take(*payloads * LEARNED_AFTER)
    assert [each for each in lessons.take(*payloads) if each.kind is not Kind.MISSING] == []


@given(st.lists(st.text(max_size=80).map(lambda name: f".{name}") | st.sampled_from(["[]", "*"]), max_size=12))
def test_a_path_is_short_and_is_never_empty(trail: list[str]) -> None:
    assert 0 < len(path_of(trail)) <= 200
