"""What a stage was before: which release `make rollback` brings back."""

from __future__ import annotations

import uuid

import pytest

from deployment.errors import DeploymentError
from deployment.releases import Notes
from devstack.aws import EmulatedAws


class Stage:
    """Deployed and rolled back by the notes alone."""

    def __init__(self, aws: EmulatedAws) -> None:
        s3 = aws.client("s3")
        bucket = f"packages-{uuid.uuid4().hex[:8]}"
        s3.create_bucket(Bucket=bucket)
        self.notes = Notes(s3, bucket, "prod")
        self.current: str | None = None

    def deploy(self, *names: str) -> None:
        for name in names:
            self.notes.add(name, f"{name}/template.json", {"BatchSize": name}, self.current)
            self.current = name

    def roll_back(self) -> str:
        assert self.current is not None
        found = self.notes.before(self.current)
        assert (found.template, found.parameters) == (f"{found.name}/template.json", {"BatchSize": found.name})
        self.current = found.name
        return found.name


@pytest.fixture
def stage(aws: EmulatedAws) -> Stage:
    return Stage(aws)


def test_each_time_one_further_back(stage: Stage) -> None:
    stage.deploy("a", "b", "b", "c")
    assert (stage.roll_back(), stage.roll_back()) == ("b", "a")
    with pytest.raises(DeploymentError, match="Release a is the stage's first"):
        stage.roll_back()


def test_never_to_what_was_rolled_back_before(stage: Stage) -> None:
    stage.deploy("good", "bad")
    assert stage.roll_back() == "good"
    stage.deploy("worse")
    assert stage.roll_back() == "good"
    stage.deploy("good", "worst")  # the checkout that is good already, then another
    assert stage.roll_back() == "good"


def test_a_release_that_comes_back_did_not_come_after_what_it_replaces(stage: Stage) -> None:
    stage.deploy("a", "good", "bad", "good")
    assert stage.roll_back() == "a"


def test_what_nobody_noted_is_said(stage: Stage) -> None:
    stage.current = "by a pipeline"
    stage.deploy("ours")
    with pytest.raises(DeploymentError, match="What was before release ours was not noted"):
        stage.roll_back()
    stage.current = "by a pipeline"
    with pytest.raises(DeploymentError, match="What was before release by a pipeline was not noted"):
        stage.roll_back()


def test_a_bucket_that_cannot_be_reached_is_a_sentence(stage: Stage) -> None:
    nowhere = Notes(stage.notes.s3, "no-such-bucket-of-ours", "prod")
    with pytest.raises(DeploymentError, match="elease a cannot be "):
        nowhere.add("a", "t", {}, None)
