"""A mistake in the sources file is a sentence that names the source and the key."""

from __future__ import annotations

import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from marshmallow import Schema, ValidationError

from chalicelib.postern.contract.errors import SourcesFileError
from chalicelib.postern.receiving.naming import Place
from chalicelib.postern.receiving.providers import provider, provider_names
from chalicelib.postern.receiving.schemes import Scheme
from chalicelib.postern.receiving.schemes.shared import Basic, Unverified
from chalicelib.postern.receiving.settings import READERS
from chalicelib.postern.receiving.sources import Source, load_sources, source_names
from devstack.settings import PROJECT
from tests.schemes import hmac_body, scheme_of, token
from tests.support import EVERY_SOURCE


def load(tmp_path: Path, text: str) -> dict[str, Source]:
    file = tmp_path / "sources.toml"
    file.write_text(text, "utf-8")
    return load_sources(file)


def test_the_shipped_file_has_a_source_for_each_provider_that_verifies() -> None:
    sources = load_sources(EVERY_SOURCE)
    assert set(sources) == {name for name in provider_names() if provider(name).needs_secret}
    assert sources["hmac"].scheme == replace(hmac_body("X-Signature", "sha256", "hex"), any_case=True)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert set(load(tmp_path, '\ufeff[shop]\nprovider = "hmac"\nheader = "X-Sig"\n')) == {"shop"}


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
    assert sources["stripe-eu"].scheme == scheme_of("stripe", tolerance_seconds=60)
    warehouse = sources["warehouse"]
    assert warehouse.scheme == replace(hmac_body("X-Sig", "sha512", "base64", "v1=", "hex"), any_case=True)
    assert (warehouse.identity.place, warehouse.type) == (Place.parse("header:X-Id"), Place.parse("body:event.kind"))
    assert warehouse.content_types == {"application/vnd.warehouse+json"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[shop]\n", "Source 'shop', key 'provider': is missing"),
        ('[shop]\nprovider = "shopfiy"', "Source 'shop', key 'provider': there is no provider 'shopfiy'"),
        ('[x]\nprovider = "x"\ncontent_types = ["application/x-www-form-urlencoded"]', "could be such a body"),
        ('[shop]\nprovider = "hmac"\ndedup = "header:X-Session-Id"', "key 'dedup': the header 'X-Session-Id' is taken"),
        ('[shop]\nprovider = "hmac"\ntype = "header:X-T"\nhidden_headers = ["x-t"]', "key 'type': the header 'X-T' is"),
        ('[x]\nprovider = "x"\nformat = "json-lines"', "has a handshake that signs a word for"),
        ('[shop]\nprovider = "shopfiy"', "Did you mean 'shopify'?"),
        ('[shop]\nprovider = "hmac"\ntolerance = 5', "Did you mean 'tolerance_seconds'?"),
        (
            '[shop]\nprovider = "hmac"\nDedup = "body:id"',
            "key 'Dedup': is not a setting of a source. Did you mean 'dedup'?",
        ),
        ('[shop]\nprovider = "hmac"\nheder = "X"', "Source 'shop', key 'heder': is not a setting"),
        ('[shop]\nprovider = "hmac"\nalgorithm = "md5"', "Source 'shop', key 'algorithm': 'md5' is not one of sha1"),
        ('[shop]\nprovider = "hmac"\nheader = "X Y"', "Source 'shop', key 'header': 'X Y' is not a header's name"),
        ('[shop]\nprovider = "hmac"\nheader = "X\\n"', "Source 'shop', key 'header'"),
        ('[shop]\nprovider = "hmac"\ndedup = "id"', "Source 'shop', key 'dedup': 'id' is not 'header:NAME'"),
        ('[shop]\nprovider = "hmac"\ndedup = 7', "Source 'shop', key 'dedup'"),
        ('[shop]\nprovider = "hmac"\ncontent_types = []', "Source 'shop', key 'content_types': the list is empty"),
        ('[shop]\nprovider = "hmac"\ncontent_types = ["json"]', "Source 'shop', key 'content_types': 'json' is not"),
        ('[shop]\nprovider = "stripe"\ntolerance_seconds = 0', "Source 'shop', key 'tolerance_seconds': must lie"),
        (
            '[shop]\nprovider = "hmac"\ndedup_window = "soon"',
            "Source 'shop', key 'dedup_window': 'soon' is no",
        ),
        ('[shop]\nprovider = "hmac"\ndedup_window = 0', "Source 'shop', key 'dedup_window': must lie between 1 s and"),
        ('[shop]\nprovider = "hmac"\ndedup_window = true', "Source 'shop', key 'dedup_window': 'True' is no duration"),
        ('[shop]\nprovider = "hmac"\ndedup_window = "400d"', "Source 'shop', key 'dedup_window': must lie"),
        ('[shop]\nprovider = "hmac"\nsame_body = "drop"', "Source 'shop', key 'same_body': 'drop' is not one of mark"),
        ('[shop]\nprovider = "hmac"\ndedup = ["bytes"]', "Source 'shop', key 'dedup'"),
        ('[shop]\nprovider = "stripe"\nheader = "X"', "Source 'shop', key 'header': provider 'stripe' has no such"),
        ('[shop]\nprovider = "hmac"\nschema = "x"', "Source 'shop', key 'schema': 'x' is not 'package.module"),
        ('[shop]\nprovider = "hmac"\nschema = "no.such:Thing"', "Source 'shop', key 'schema': 'no.such:Thing' cannot"),
        ('[shop]\nprovider = "hmac"\nschema = "json:loads"', "Source 'shop', key 'schema': 'json:loads' is not a"),
        ('[Shop]\nprovider = "hmac"', "Source 'Shop': a name has"),
        ('[-shop]\nprovider = "hmac"', "Source '-shop': a name has"),
        ('provider = "hmac"', "'provider' stands outside of a source"),
        ("[shop]\nprovider = 7", "Source 'shop', key 'provider': is not a text"),
        ('[shop]\nprovider = ""', "Source 'shop', key 'provider': there is no provider ''"),
        ('[shop]\nprovider = "HMAC"', "Source 'shop', key 'provider': there is no provider 'HMAC'"),
        ('[shop]\nprovider = "hmac"\n[shop.more]\nx = 1', "Source 'shop', key 'more': is not a setting"),
        ('[shop]\nprovider = "hmac"\nsecret = "canary"', "Source 'shop', key 'secret': is not a setting"),
        ('[shop]\nprovider = "hmac"\nheader = ""', "Source 'shop', key 'header'"),
        ('[shop]\nprovider = "hmac"\nheader = "X:"', "Source 'shop', key 'header'"),
        ('[shop]\nprovider = "hmac"\nheader = 7', "Source 'shop', key 'header': is not a text"),
        ('[shop]\nprovider = "hmac"\nprefix = 7', "Source 'shop', key 'prefix': is not a text"),
        ('[shop]\nprovider = "hmac"\nalgorithm = "SHA256"', "Source 'shop', key 'algorithm': 'SHA256' is not one of"),
        ('[shop]\nprovider = "hmac"\nencoding = "base32"', "Source 'shop', key 'encoding': 'base32' is not one of hex"),
        ('[shop]\nprovider = "hmac"\nsecret_encoding = "utf-8"', "Source 'shop', key 'secret_encoding': 'utf-8' is"),
        (
            '[shop]\nprovider = "github"\ntolerance_seconds = 9',
            "key 'tolerance_seconds': provider 'github' has no",
        ),
        ('[shop]\nprovider = "stripe"\ntolerance_seconds = 604801', "Source 'shop', key 'tolerance_seconds': must lie"),
        ('[shop]\nprovider = "stripe"\ntolerance_seconds = "9"', "Source 'shop', key 'tolerance_seconds'"),
        ('[shop]\nprovider = "stripe"\ntolerance_seconds = 1.5', "Source 'shop', key 'tolerance_seconds'"),
        ('[shop]\nprovider = "stripe"\ntolerance_seconds = true', "Source 'shop', key 'tolerance_seconds'"),
        ('[shop]\nprovider = "none"\nheader = "X"', "Source 'shop', key 'header': provider 'none' has no such"),
        ('[shop]\nprovider = "github"\nheader = "X"', "Source 'shop', key 'header': provider 'github' has no such"),
        ('[shop]\nprovider = "hmac"\ntype = "header:"', "Source 'shop', key 'type': 'header:' is not 'header:NAME'"),
        ('[shop]\nprovider = "hmac"\ndedup = ["id"]', "Source 'shop', key 'dedup'"),
        ('[shop]\nprovider = "hmac"\ncontent_types = "application/json"', "Source 'shop', key 'content_types'"),
        ('[shop]\nprovider = "hmac"\ncontent_types = [7]', "Source 'shop', key 'content_types'"),
        ('[shop]\nprovider = "hmac"\nschema = 7', "Source 'shop', key 'schema'"),
        ('[shop]\nprovider = "hmac"\nschema = ".x:Y"', "Source 'shop', key 'schema': '.x:Y' is not 'package.module"),
        ('[shop]\nprovider = "hmac"\nschema = "a..b:C"', "Source 'shop', key 'schema': 'a..b:C' cannot be imported"),
        ('[shop]\nprovider = "hmac"\nschema = "json:Nothing"', "Source 'shop', key 'schema': 'json:Nothing' cannot"),
        ('[shop]\nprovider = "hmac"\nquarantine = "yes"', "Source 'shop', key 'quarantine': is neither true nor"),
        ('[shop]\nprovider = "hmac"\nquarantine = 2', "Source 'shop', key 'quarantine': is neither true nor"),
        ('[shop]\nprovider = "hmac"\nitems = true', "Source 'shop', key 'items': is not a text"),
        ('[shop]\nprovider = "hmac"\nhidden_headers = ["X Y"]', "key 'hidden_headers': 'X Y' is not a header's name"),
        ('[shop]\nprovider = "hmac"\nhidden_headers = "X"', "Source 'shop', key 'hidden_headers': is not a list"),
        ('[shop]\nprovider = "hmac"\nhidden_headers = [[]]', "Source 'shop', key 'hidden_headers': is not a text"),
        ('[shop]\nprovider = "hmac"\nschema = "a:B\\n"', "Source 'shop', key 'schema'"),
        ('[shop]\nprovider = ["hmac"]', "Source 'shop', key 'provider': is not a text"),
        ('[shop]\nprovider = "hmac"\nalgorithm = ["sha1"]', "Source 'shop', key 'algorithm': is not a text"),
        *(
            (f'[shop]\nprovider = "hmac"\nurl = {url}', "Source 'shop', key 'url'")
            for url in (
                *("7", '""', '"shop.example"', '"ftp://shop.example"', '"https://"', '"https:///x"', '"https://a b"'),
                *(
                    '"https://shop.example:99999"',
                    '"https://[::1"',
                    '"https://shop.example/ "',
                    '"https://a..b/"',
                    '"https://.x.example/"',
                ),
                *('"https://shop.example/\\n"', '"https://?x"', '"//shop.example"', '"https://a\\tb"'),
            )
        ),
        ('[sh_op]\nprovider = "hmac"', "Source 'sh_op': a name has"),
        ('["sh/op"]\nprovider = "hmac"', "Source 'sh/op': a name has"),
        ('[""]\nprovider = "hmac"', "Source '': a name has"),
        ('["shop\\n"]\nprovider = "hmac"', "a name has"),
        ('["şhop"]\nprovider = "hmac"', "Source 'şhop': a name has"),
        (f'[{"s" * 65}]\nprovider = "hmac"', "a name has 1 to 64"),
        ("[[shop]]\nprovider = 'hmac'", "'shop'"),
        ("[shop", "is not TOML"),
        ('[shop]\nprovider = "hmac"\n[shop]\nprovider = "hmac"', "is not TOML"),
        ('[shop]\nprovider = "hmac"\nprovider = "none"', "is not TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SourcesFileError) as caught:
        load(tmp_path, text)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        "application/json ",
        "text/plain,text/html",
        "text/*",
        "*/*",
        "Application/JSON",
    ],
)
def test_a_content_type_that_no_delivery_could_match_is_a_mistake(tmp_path: Path, content_type: str) -> None:
    """A delivery's content type is compared whole, in lower case and without parameters: it would never be taken."""
    with pytest.raises(SourcesFileError) as caught:
        load(tmp_path, f'[shop]\nprovider = "hmac"\ncontent_types = ["{content_type}"]')
    assert "Source 'shop', key 'content_types'" in str(caught.value)


@pytest.mark.parametrize("place", ["header:X Id", "header:X-Id\\n", "header:X-Id:", "header: X-Id", "header:é"])
def test_a_place_in_a_header_that_no_request_can_have_is_a_mistake(tmp_path: Path, place: str) -> None:
    """The key would silently be a hash of the body instead."""
    with pytest.raises(SourcesFileError) as caught:
        load(tmp_path, f'[shop]\nprovider = "hmac"\ndedup = "{place}"')
    assert "Source 'shop', key 'dedup'" in str(caught.value)


def test_the_first_mistake_is_told_and_not_a_later_one(tmp_path: Path) -> None:
    text = '[good]\nprovider = "github"\n[bad]\nprovider = "nobody"\n[worse]\nprovider = "y"'
    with pytest.raises(SourcesFileError, match="Source 'bad'"):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourcesFileError, match=r"none\.toml cannot be read"):
        load_sources(tmp_path / "none.toml")


def test_a_folder_or_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes('# é\n[shop]\nprovider = "hmac"'.encode("latin-1"))
    for path in (tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(SourcesFileError, match="cannot be read"):
            load_sources(path)


def test_a_file_without_sources_is_no_mistake(tmp_path: Path) -> None:
    assert load(tmp_path, "# none yet\n") == {}


@pytest.mark.parametrize("name", ["a", "7", "stripe-eu", "a--b", "s" * 64])
def test_a_name_is_what_a_url_needs_no_escapes_for(tmp_path: Path, name: str) -> None:
    assert set(load(tmp_path, f'[{name}]\nprovider = "hmac"')) == {name}


@pytest.mark.parametrize(
    ("provider", "scheme", "dedup", "type", "content_types", "form_field", "needs_secret"),
    [
        (
            "github",
            hmac_body("X-Hub-Signature-256", "sha256", "hex", "sha256="),
            Place.parse("header:X-GitHub-Delivery"),
            Place.parse("header:X-GitHub-Event"),
            {"application/json", "application/x-www-form-urlencoded"},
            "payload",
            True,
        ),
        (
            "stripe",
            scheme_of("stripe", tolerance_seconds=300),
            Place.parse("body:id"),
            Place.parse("body:type"),
            {"application/json"},
            None,
            True,
        ),
        (
            "standard-webhooks",
            scheme_of("standard-webhooks", tolerance_seconds=300),
            None,
            Place.parse("body:type"),
            {"application/json"},
            None,
            True,
        ),
        (
            "hmac",
            replace(hmac_body("X-Signature"), any_case=True),
            None,
            Place.parse("body:type"),
            {"application/json"},
            None,
            True,
        ),
        ("token", token("X-Webhook-Token"), None, Place.parse("body:type"), {"application/json"}, None, True),
        ("basic", Basic(), None, Place.parse("body:type"), {"application/json"}, None, True),
        ("none", Unverified(), None, Place.parse("body:type"), {"application/json"}, None, False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_source_that_names_only_its_provider_has_all_it_needs(
    tmp_path: Path,
    provider: str,
    scheme: Scheme,
    dedup: Place | None,
    type: Place | None,
    content_types: set[str],
    form_field: str | None,
    needs_secret: bool,
) -> None:
    source = load(tmp_path, f'[shop]\nprovider = "{provider}"')["shop"]
    assert (source.name, source.provider, source.scheme, source.needs_secret) == (
        "shop",
        provider,
        scheme,
        needs_secret,
    )
    assert (source.identity.place, source.type) == (dedup, type)
    assert (source.content_types, source.form_field) == (content_types, form_field)
    assert (source.schema, source.items, source.url, source.quarantine) == (None, None, None, False)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://shop.example",
            "http://localhost:8000/hooks/x",
            "https://127.0.0.1/a?b=c&d=%20",
            "HTTPS://X.example/",
        ),
        *("https://[::1]:8000/x", "https://a_b.example/", "https://user@shop.example/x"),
        *("https://é.example/ä?ü=1", "https://x.y.z:8443/p?a=b#c"),
    ],
)
def test_a_url_is_kept_as_it_was_written(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, f'[shop]\nprovider = "hmac"\nurl = "{url}"')["shop"].url == url


def test_no_source_goes_unverified_that_does_not_spell_it_out(tmp_path: Path) -> None:
    assert [name for name in provider_names() if not provider(name).needs_secret] == ["none"]
    assert not any(isinstance(s.scheme, Unverified) for s in load_sources(EVERY_SOURCE).values())
    with pytest.raises(SourcesFileError, match="key 'provider': is missing"):
        load(tmp_path, "[shop]")


def test_a_token_behind_a_prefix_of_its_own_is_a_credential_under_any_name(tmp_path: Path) -> None:
    text = '[shop]\nprovider = "token"\nheader = "X-Shop-Auth"\nprefix = "Key "'
    scheme = load(tmp_path, text)["shop"].scheme
    assert scheme == token("X-Shop-Auth", "Key ")
    assert scheme.credentials == {"x-shop-auth"}


@pytest.fixture
def schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "shop_schemas.py").write_text(SHOP_SCHEMAS)
    (tmp_path / "shop_typo.py").write_text("class Order(:\n")
    (tmp_path / "shop_unfinished.py").write_text("Order = Schema_of_orders\n")
    (tmp_path / "shop_loud.py").write_text("raise RuntimeError('no')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("shop_schemas", None)


SHOP_SCHEMAS = """
from marshmallow import EXCLUDE, INCLUDE, RAISE, Schema, fields

class Item(Schema):
    sku = fields.String()

class Order(Schema):
    number = fields.Integer(required=True)

class StrictOrder(Order):
    class Meta:
        unknown = RAISE

class InheritedStrictOrder(StrictOrder):
    note = fields.String()

class Strict:
    unknown = RAISE

class OrderWithSharedMeta(Order):
    class Meta(Strict):
        pass

class OrderThatForgets(Order):
    class Meta:
        unknown = EXCLUDE

class OrderWithOtherMeta(Order):
    class Meta:
        dateformat = "iso"

class OpenOrder(Order):
    class Meta:
        unknown = INCLUDE

class OpenOrderWithOtherMeta(OpenOrder):
    class Meta:
        dateformat = "iso"

class OrderWithItems(Order):
    items = fields.List(fields.Nested(Item))

class OrderWithOpenItems(Order):
    items = fields.List(fields.Nested(Item, unknown=INCLUDE))

class OrderWithoutItsFields(Order):
    class Meta:
        fields = ("nothing",)

class OrderWithArguments(Order):
    def __init__(self, shop):
        super().__init__()

not_a_class = Order()
"""


def load_schema(tmp_path: Path, name: str) -> Schema:
    schema = load(tmp_path, f'[shop]\nprovider = "none"\nschema = "{name}"')["shop"].schema
    assert schema is not None
    return schema


@pytest.mark.usefixtures("schemas")
def test_a_schema_lets_unknown_fields_pass_unless_it_says_otherwise(tmp_path: Path) -> None:
    text = '[{0}]\nprovider = "none"\nschema = "shop_schemas:{1}"\n'
    sources = load(tmp_path, text.format("lax", "Order") + text.format("strict", "StrictOrder"))
    assert sources["lax"].schema is not None
    assert sources["strict"].schema is not None
    assert sources["lax"].schema.load({"number": 1, "new": True})
    with pytest.raises(ValidationError):
        sources["strict"].schema.load({"number": 1, "new": True})


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(
    "name",
    [
        "Order",
        "OrderWithOtherMeta",
        "OpenOrderWithOtherMeta",
        "OrderThatForgets",
        "OrderWithOpenItems",
    ],
)
def test_a_field_that_a_provider_added_without_asking_passes(tmp_path: Path, name: str) -> None:
    order = {"number": 1, "new": True, "items": [{"sku": "a", "new": True}]}
    assert load_schema(tmp_path, f"shop_schemas:{name}").load(order)


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize("name", ["StrictOrder", "InheritedStrictOrder", "OrderWithSharedMeta"])
def test_a_field_that_a_schema_means_to_refuse_is_refused_however_it_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="new"):
        load_schema(tmp_path, f"shop_schemas:{name}").load({"number": 1, "new": True})


@pytest.mark.usefixtures("schemas")
def test_a_nested_schema_says_for_itself_what_it_lets_pass(tmp_path: Path) -> None:
    schema = load_schema(tmp_path, "shop_schemas:OrderWithItems")
    assert schema.load({"number": 1, "items": [{"sku": "a"}], "new": True})
    with pytest.raises(ValidationError, match="new"):
        schema.load({"number": 1, "items": [{"sku": "a", "new": True}]})


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(
    "name",
    [
        "shop_typo:Order",
        "shop_unfinished:Order",
        "shop_loud:Order",
        "shop_schemas:Nothing",
        "shop_schemas:not_a_class",
        "shop_schemas:fields",
        "shop_schemas:OrderWithoutItsFields",
        "shop_schemas:OrderWithArguments",
    ],
)
def test_a_schema_that_cannot_be_had_is_named_whatever_is_wrong_with_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourcesFileError) as caught:
        load_schema(tmp_path, name)
    assert str(caught.value).startswith(f"Source 'shop', key 'schema': '{name}'")


def test_the_names_alone_can_be_had_of_a_file_that_is_wrong(tmp_path: Path) -> None:
    """The processor tells its metrics apart by them, and must not stop for a mistake in a provider's settings."""
    file = tmp_path / "sources.toml"
    assert source_names(file) == frozenset()
    file.write_text('[shop]\nprovider = "none"\n[other]\nprovider = "no such"\n', "utf-8")
    assert source_names(file) == {"shop", "other"}
    for damaged in (b"[shop", b"\xff"):
        file.write_bytes(damaged)
        assert source_names(file) == frozenset()


def test_every_setting_has_an_example_in_the_document_and_every_example_loads(tmp_path: Path) -> None:
    text = (PROJECT / "docs" / "sources.md").read_text("utf-8")
    blocks = re.findall(r"^ *```toml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    used: set[str] = set()
    for block in map(textwrap.dedent, blocks):
        for table in tomllib.loads(block).values():
            used |= table.keys()
        load(tmp_path, re.sub(r"^schema = .*$", "", block, flags=re.MULTILINE))  # of a module of the reader's own
    assert used == READERS.keys() - {"trust_unsigned_id"}
