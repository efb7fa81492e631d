"""A mistake in the sources file is a sentence that names the source and the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from marshmallow import ValidationError

from chalicelib.config import SHIPPED_SOURCES
from chalicelib.errors import SourcesFileError
from chalicelib.naming import Locator
from chalicelib.providers import PROVIDERS
from chalicelib.signatures import HmacBody, Stripe
from chalicelib.sources import Source, load_sources


def load(tmp_path: Path, text: str) -> dict[str, Source]:
    file = tmp_path / "sources.toml"
    file.write_text(text, "utf-8")
    return load_sources(file)


def test_the_shipped_file_has_a_source_for_each_provider_that_verifies() -> None:
    sources = load_sources(SHIPPED_SOURCES)
    assert set(sources) == {name for name, provider in PROVIDERS.items() if provider.needs_secret}
    assert sources["hmac"].scheme == HmacBody("X-Signature", "sha256", "hex")


def test_settings_reach_the_scheme(tmp_path: Path) -> None:
    sources = load(
        tmp_path,
        """
        [stripe-eu]
        provider = "stripe"
        tolerance_seconds = 60

        [warehouse]
        provider = "hmac"
        header = "X-Sig"
        algorithm = "sha512"
        encoding = "base64"
        prefix = "v1="
        secret_encoding = "hex"
        dedup = "header:X-Id"
        type = "body:event.kind"
        content_types = ["application/vnd.warehouse+json"]
        """,
    )
    assert sources["stripe-eu"].scheme == Stripe(tolerance_seconds=60)
    warehouse = sources["warehouse"]
    assert warehouse.scheme == HmacBody("X-Sig", "sha512", "base64", "v1=", "hex")
    assert (warehouse.dedup, warehouse.type) == (Locator("header", "X-Id"), Locator("body", "event.kind"))
    assert warehouse.content_types == {"application/vnd.warehouse+json"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[shop]\n", "Source 'shop', key 'provider': is missing"),
        ('[shop]\nprovider = "shopfiy"', "Source 'shop', key 'provider': there is no provider 'shopfiy'"),
        ('[shop]\nprovider = "hmac"\nheder = "X"', "Source 'shop', key 'heder': is not a setting"),
        ('[shop]\nprovider = "hmac"\nalgorithm = "md5"', "Source 'shop', key 'algorithm': 'md5' is not one of sha1"),
        ('[shop]\nprovider = "hmac"\nheader = "X Y"', "Source 'shop', key 'header': 'X Y' is not a header's name"),
        ('[shop]\nprovider = "hmac"\nheader = "X\\n"', "Source 'shop', key 'header'"),
        ('[shop]\nprovider = "hmac"\ndedup = "id"', "Source 'shop', key 'dedup': 'id' is not 'header:NAME'"),
        ('[shop]\nprovider = "hmac"\ndedup = 7', "Source 'shop', key 'dedup'"),
        ('[shop]\nprovider = "hmac"\ncontent_types = []', "Source 'shop', key 'content_types': the list is empty"),
        ('[shop]\nprovider = "hmac"\ncontent_types = ["json"]', "Source 'shop', key 'content_types': 'json' is not"),
        ('[shop]\nprovider = "stripe"\ntolerance_seconds = 0', "Source 'shop', key 'tolerance_seconds': must lie"),
        ('[shop]\nprovider = "stripe"\nheader = "X"', "Source 'shop', key 'header': provider 'stripe' has no such"),
        ('[shop]\nprovider = "hmac"\nschema = "x"', "Source 'shop', key 'schema': 'x' is not 'package.module"),
        ('[shop]\nprovider = "hmac"\nschema = "no.such:Thing"', "Source 'shop', key 'schema': 'no.such:Thing' cannot"),
        ('[shop]\nprovider = "hmac"\nschema = "json:loads"', "Source 'shop', key 'schema': 'json:loads' is not a"),
        ('[Shop]\nprovider = "hmac"', "Source 'Shop': a name has"),
        ('[-shop]\nprovider = "hmac"', "Source '-shop': a name has"),
        ('provider = "hmac"', "'provider' stands outside of a source"),
        ("[shop", "is not TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SourcesFileError) as caught:
        load(tmp_path, text)
    assert sentence in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourcesFileError, match="cannot be read"):
        load_sources(tmp_path / "none.toml")


@pytest.fixture
def schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_schemas.py").write_text(
        "from marshmallow import RAISE, Schema, fields\n"
        "class Order(Schema):\n    number = fields.Integer(required=True)\n"
        "class StrictOrder(Order):\n    class Meta:\n        unknown = RAISE\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("schemas")
def test_a_schema_lets_unknown_fields_pass_unless_it_says_otherwise(tmp_path: Path) -> None:
    text = '[{0}]\nprovider = "none"\nschema = "shop_schemas:{1}"\n'
    sources = load(tmp_path, text.format("lax", "Order") + text.format("strict", "StrictOrder"))
    assert sources["lax"].schema is not None
    assert sources["strict"].schema is not None
    assert sources["lax"].schema.load({"number": 1, "new": True})
    with pytest.raises(ValidationError):
        sources["strict"].schema.load({"number": 1, "new": True})
