"""Which handlers are in each other's way is remembered for a minute."""

from __future__ import annotations

from chalicelib.postern.processing.contention import Contention


def test_it_is_remembered_for_a_minute_after_the_last_time() -> None:
    now = [0.0]
    contention = Contention(lambda: now[0])
    assert contention.among({"a", "b"}) == []
    assert contention.note({"b", "a"})
    assert contention.among({"c", "b", "a"}) == ["a", "b"]
    now[0] = 40.0
    assert not contention.note({"a"})
    now[0] = 70.0
    assert contention.among({"a", "b"}) == ["a"]
    assert contention.note({"a", "b"})
    now[0] = 131.0
    assert contention.among({"a", "b"}) == []
