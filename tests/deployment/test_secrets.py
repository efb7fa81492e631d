"""`postern secrets` and `postern send` on a deployed stage, with an operator's rights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from deployment.errors import DeploymentError
from deployment.secrets import Content, change, read
from deployment.session import Session
from tests.deployment.cloud import Cloud
from tests.deployment.installation import Installation


@pytest.fixture
def stage(installation: Installation) -> Iterator[Installation]:
    """The installation, with its secrets as they were afterwards."""
    client, arn = installation.cloud.client("secretsmanager"), installation.outputs["SourcesSecretArn"]
    before = client.get_secret_value(SecretId=arn)["SecretString"]
    yield installation
    client.put_secret_value(SecretId=arn, SecretString=before)
    installation.cloud.end_containers()


def stored(stage: Installation) -> dict[str, Any]:
    client = stage.cloud.client("secretsmanager")
    found: dict[str, Any] = json.loads(
        client.get_secret_value(SecretId=stage.outputs["SourcesSecretArn"])["SecretString"]
    )
    return found


def test_a_secret_is_set_rotated_and_the_old_one_dropped_without_being_shown(stage: Installation) -> None:
    others = {name: value for name, value in stored(stage).items() if name != "github"}
    said = []

    def done(*arguments: str, given: str = "") -> str:
        result = stage.postern("secrets", *arguments, given=given)
        assert result.returncode == 0, result.stderr
        said.append(result.stdout + result.stderr)
        return result.stdout

    assert "github has the secret " in done("set", "github", "--replace", given="the first one\n")
    assert stored(stage) == {**others, "github": "the first one"}
    assert "--done --stage prod" in done("rotate", "github", given="the second one")
    assert stored(stage)["github"] == ["the second one", "the first one"]
    [listed] = [row for row in json.loads(done("list", "--json")) if row["source"] == "github"]
    assert (len(listed["secrets"]), listed["state"]) == (2, "ok")

    stage.cloud.end_containers()
    for secret in ("the first one", "the second one"):
        assert stage.post("github", secret=secret).status == 202
    done("rotate", "github", "--done")
    assert stored(stage) == {**others, "github": "the second one"}
    assert not [line for line in said if "the first one" in line or "the second one" in line]


def test_what_cannot_be_is_refused_and_nothing_is_changed(stage: Installation) -> None:
    before = stored(stage)

    def refused(*arguments: str, given: str = "") -> str:
        result = stage.postern("secrets", *arguments, given=given)
        assert (result.returncode, stored(stage)) == (1, before), result.stdout
        assert "hunter2" not in result.stderr
        return result.stderr

    assert "There is no source 'githbu'" in refused("set", "githbu", given="hunter2")
    assert "github has a secret already: `postern secrets rotate github` adds one" in refused("set", "github")
    assert "Nothing was given" in refused("set", "github", "--replace", given="\n")
    assert "This cannot be discord's secret (secret_is_not_hex)." in refused(
        "set", "discord", "--replace", given="hunter2"
    )
    assert "github has one secret" in refused("rotate", "github", "--done")


def test_no_change_is_lost_when_two_people_make_one_at_once(
    cloud: Cloud, stage: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cloud.environ().items():
        monkeypatch.setenv(name, value)
    session, arn = Session(), stage.outputs["SourcesSecretArn"]

    def mine(known: Content) -> Content:
        if "theirs" not in known:
            change(session, arn, lambda known: known | {"theirs": "2"})  # meanwhile
        return known | {"mine": "1"}

    change(session, arn, mine)
    secrets, _ = read(session, arn)
    assert (secrets["mine"], secrets["theirs"]) == ("1", "2")
    previous = cloud.client("secretsmanager").get_secret_value(SecretId=arn, VersionStage="AWSPREVIOUS")
    assert json.loads(previous["SecretString"]).keys() == secrets.keys() - {"mine"}
    described = cloud.client("secretsmanager").describe_secret(SecretId=arn)["VersionIdsToStages"]
    assert sorted(label for labels in described.values() for label in labels) == ["AWSCURRENT", "AWSPREVIOUS"]

    def always(known: Content) -> Content:
        change(session, arn, lambda known: known | {"theirs": str(len(known))})
        return known | {"mine": "lost"}

    with pytest.raises(DeploymentError, match="Somebody else changes"):
        change(session, arn, always)
    assert read(session, arn)[0]["mine"] == "1"


def test_a_sample_is_sent_to_a_stage_signed_with_its_own_secret(stage: Installation) -> None:
    sent = stage.postern("send", "github", "push", "--yes")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert sent.stdout.startswith('202  {"status":"accepted"')
    assert "\nprocessed: postern show " in sent.stdout
    assert sent.stdout.rstrip().endswith("--stage prod")


def test_nothing_is_sent_to_a_stage_unasked_or_unsigned(stage: Installation) -> None:
    unasked = stage.postern("send", "github", "push")
    assert unasked.returncode == 1
    assert "whose handlers will run? Nobody is here to ask: say --yes." in unasked.stderr
    unsigned = stage.postern("send", "discord", "--yes")
    assert unsigned.returncode == 1
    assert "its provider signs with a key of its own" in unsigned.stderr
