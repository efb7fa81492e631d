"""For how long things are kept, as it is set."""

from __future__ import annotations

import re

import yaml

from chalicelib.postern.contract.bounds import QUEUES_KEEP_DAYS
from chalicelib.postern.operating.storage.actions import Retention
from chalicelib.postern.running.config import Config
from devstack.settings import PROJECT


def test_keys_and_unresolved_events_never_go_before_the_other_events() -> None:
    assert Retention.of(200, dedup_days=180, unresolved_days=30) == Retention(200, 200, 200)
    assert Retention.of(90, dedup_days=180, unresolved_days=365) == Retention(90, 180, 365)


def test_the_queues_keep_messages_for_as_long_as_it_is_reckoned_with() -> None:
    text = (PROJECT / "infra" / "resources.yaml").read_text("utf-8")
    seconds = [int(number) for number in re.findall(r"MessageRetentionPeriod: (\d+)", text)]
    assert len(seconds) == 2
    assert sum(seconds) == QUEUES_KEEP_DAYS * 86_400


def test_a_deployment_has_the_same_defaults_and_the_same_bound() -> None:
    text = (PROJECT / "infra" / "application.yaml").read_text("utf-8")
    parameters = yaml.safe_load(text)["Parameters"]
    names = ("RetentionDays", "DedupDays", "UnresolvedDays")
    config = Config.from_environ({})
    assert [parameters[name]["Default"] for name in names] == [
        config.retention_days,
        config.dedup_days,
        config.unresolved_days,
    ]
    assert parameters["RetentionDays"]["MinValue"] == QUEUES_KEEP_DAYS + 1
