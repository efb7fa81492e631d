"""An outage is remembered for half an hour after its last sign."""

from __future__ import annotations

from chalicelib.postern.processing.outages import Outages


def test_it_is_remembered_for_half_an_hour_after_its_last_sign() -> None:
    now = [0.0]
    outages = Outages(lambda: now[0])
    assert not outages.are_recent
    outages.note()
    now[0] = 1_700.0
    assert outages.are_recent
    outages.note()
    now[0] = 3_400.0
    assert outages.are_recent
    now[0] = 3_501.0
    assert not outages.are_recent
