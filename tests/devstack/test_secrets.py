from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from chalicelib.postern.receiving.sources import load_sources
from devstack.errors import StartError
from devstack.secrets import ensure_development_secrets, read_secrets
from tests.support import EVERY_SOURCE


def test_every_shipped_source_gets_a_secret_of_its_providers_shape(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    ensure_development_secrets(file, load_sources(EVERY_SOURCE))
    secrets = read_secrets(file)
    assert {"github", "stripe", "standard-webhooks", "hmac", "token", "basic"} <= secrets.keys()
    assert len(base64.b64decode(str(secrets["standard-webhooks"]).removeprefix("whsec_"))) == 32
    assert ":" in secrets["basic"]


def test_only_the_owner_may_read_them(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    ensure_development_secrets(file, load_sources(EVERY_SOURCE))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_new_source_gets_one_and_the_others_keep_theirs(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps({"github": "mine"}))
    ensure_development_secrets(file, load_sources(EVERY_SOURCE))
    assert read_secrets(file)["github"] == "mine"
    assert "stripe" in read_secrets(file)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text('\ufeff{"github": "mine"}', "utf-8")
    assert read_secrets(file) == {"github": "mine"}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"secret-canary"', '{"github": 7}', '{"github": ["secret-canary", ""]}']
)
def test_a_malformed_file_is_a_sentence_that_quotes_no_secret(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(text)
    with pytest.raises(StartError) as caught:
        read_secrets(file)
    assert str(file) in str(caught.value)
    assert "canary" not in str(caught.value)
