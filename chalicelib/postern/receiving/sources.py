"""Which sources exist: loads the sources file, checks it, and gives each source what the ack path needs."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chalicelib.postern.contract.deliveries import Delivery, Reply, is_credential
from chalicelib.postern.contract.errors import SourcesFileError
from chalicelib.postern.contract.payloads import Format, format_of
from chalicelib.postern.receiving.identity import Rule
from chalicelib.postern.receiving.naming import Place
from chalicelib.postern.receiving.providers import Provider, provider
from chalicelib.postern.receiving.schemes import Scheme, scheme_class
from chalicelib.postern.receiving.settings import OPTIONS, Mistake, read

if TYPE_CHECKING:
    from marshmallow import Schema

# The sources' secret holds a source's own secrets under its name, and under its name with these what a handshake asks
# for, and, in a local run, what only a sender has. No source's name has a dot.
VERIFY_TOKEN = ".verify_token"
SIGNING_KEY = ".signing_key"
# And under this what its provider's API is read with.
API_TOKEN = ".api_token"
# Until when the operator awaits a secret that the provider brings itself: a time.
AWAITED_UNTIL = ".awaited_until"

# API Gateway does not decode path parameters: a name is what needs no decoding.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True)
class Reconcile:
    """Where the webhook stands at the provider's API, and whether the two are compared every hour."""

    url: str
    hourly: bool = False


@dataclass(frozen=True)
class Source:
    """A named place that events come from, ready to use.

    `identity` says which of its deliveries are the same event; `url` is its address where that is not the one that API
    Gateway has for it; `quarantine` says that some of what it refuses is kept to be explained. All else is the
    provider's (`receiving.providers.Provider`).
    """

    name: str
    provider: str
    scheme: Scheme
    needs_secret: bool
    identity: Rule
    type: Place | None
    items: str | None
    content_types: frozenset[str]
    form_field: str | None
    format: Format | None
    empty_body: bool
    handshakes: Sequence[Mapping[str, Any]]
    answer: Reply | None
    url: str | None
    quarantine: bool
    hidden_headers: frozenset[str]
    schema: Schema | None
    reconcile: Reconcile | None = None

    @property
    def signs_words(self) -> bool:
        """Whether a handshake of it signs a word for whoever asks."""
        return any(each["reply"] == "digest" and not each.get("signed") for each in self.handshakes)

    def address_of(self, delivery: Delivery) -> str:
        """The URL that its sender signed: the source's own, with the request's query unless it has one itself."""
        if self.url is None:
            return delivery.url
        return self.url if "?" in self.url else self.url + "".join(delivery.url.partition("?")[1:])


class Sources(Mapping[str, Source]):
    """The sources that a file declares, each made when it is first asked for: a function that serves one needs one.

    Raises SourcesFileError with a sentence, here for a file that is none, and there for a source with a mistake.
    """

    def __init__(self, path: Path) -> None:
        self._tables = _tables(path)
        self._made: dict[str, Source] = {}

    def __getitem__(self, name: str) -> Source:
        if name not in self._made:
            self._made[name] = _source(name, self._tables[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)


def load_sources(path: Path) -> dict[str, Source]:
    """All of the sources that the file declares, by name. Raises SourcesFileError with a sentence."""
    return dict(Sources(path))


def _tables(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise SourcesFileError(f"The sources file {path} cannot be read: {exc}.") from exc
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SourcesFileError(f"The sources file {path} is not TOML: {exc}.") from exc


def source_names(path: Path) -> frozenset[str]:
    """The names that the file declares, for whoever needs no more of it; none where it cannot be read."""
    try:
        return frozenset(_tables(path))
    except SourcesFileError:
        return frozenset()


def _source(name: str, table: Any) -> Source:
    if not isinstance(table, dict):
        raise SourcesFileError(f"'{name}' stands outside of a source: every key belongs under a [source-name].")
    if not _NAME.fullmatch(name):
        raise SourcesFileError(f"Source '{name}': a name has 1 to 64 of a-z, 0-9 and '-', and no '-' at its ends.")
    try:
        settings = read(table)
    except Mistake as exc:
        raise SourcesFileError(f"Source '{name}', {exc}") from exc
    kind = provider(settings["provider"])
    scheme = _scheme(name, kind, {key: settings[key] for key in OPTIONS if key in settings})
    items = settings.get("items", kind.items)
    content_types = settings.get("content_types", kind.content_types)
    made = Source(
        name=name,
        provider=kind.name,
        scheme=scheme,
        needs_secret=kind.needs_secret,
        identity=Rule(
            place=settings.get("dedup", kind.dedup),
            first="dedup" in settings or items is not None,
            header_is_safe=not scheme.covers_body,
            window=settings.get("dedup_window"),
            same_body=settings.get("same_body", "mark"),
        ),
        type=settings.get("type", kind.type),
        items=items,
        content_types=frozenset(content_types),
        form_field=kind.form_field,
        format=Format(settings["format"]) if "format" in settings else None,
        empty_body=settings.get("empty_body", kind.empty_body),
        handshakes=kind.handshakes,
        answer=settings.get("answer", kind.answer),
        url=settings.get("url"),
        quarantine=settings.get("quarantine", False),
        hidden_headers=frozenset(name.lower() for name in settings.get("hidden_headers", ())),
        schema=_payload_schema(name, settings["schema"]) if "schema" in settings else None,
        reconcile=Reconcile(**settings["reconcile"]) if "reconcile" in settings else None,
    )
    _check_reconcile(made, settings)
    if made.signs_words and (
        {format_of(each) for each in content_types} != {Format.JSON} or settings.get("format", "json") != "json"
    ):
        raise SourcesFileError(
            f"Source '{name}', key 'content_types': provider '{kind.name}' has a handshake that signs a word for "
            "whoever asks, which could be such a body. It takes JSON alone."
        )
    _check_hidden(made)
    return made


def _check_reconcile(source: Source, settings: Mapping[str, Any]) -> None:
    """What the provider lists has to say which event it is."""
    if source.reconcile is None:
        return
    from chalicelib.postern.receiving.histories import PROVIDERS

    where = f"Source '{source.name}', key 'reconcile': "
    if source.provider not in PROVIDERS:
        known = " and ".join(PROVIDERS)
        raise SourcesFileError(f"{where}provider '{source.provider}' has no history that can be read; {known} have.")
    if "dedup" in settings or "items" in settings:
        raise SourcesFileError(f"{where}it needs the provider's own ids, and `dedup` or `items` says otherwise.")


def _check_hidden(source: Source) -> None:
    """A header that is not kept cannot say which event it is when the delivery is verified again."""
    dedup = source.identity.place if isinstance(source.identity.place, Place) else None
    for key, place in (("dedup", dedup), ("type", source.type)):
        named = [at.path for part in place.parts for at in part if at.where == "header"] if place else []
        for name in named:
            if is_credential(name.lower()) or name.lower() in source.hidden_headers:
                raise SourcesFileError(
                    f"Source '{source.name}', key '{key}': the header '{name}' is taken for a password, and not kept."
                )


def _scheme(source: str, kind: Provider, options: Mapping[str, Any]) -> Scheme:
    for key in options:
        if key not in kind.options:
            raise SourcesFileError(f"Source '{source}', key '{key}': provider '{kind.name}' has no such setting.")
    made: Scheme = scheme_class(kind.scheme)(**{**kind.settings, **options})
    return made


def _payload_schema(source: str, path: str) -> Schema:
    # Here, for it takes a fifth of a cold start, and few sources have a schema.
    from marshmallow import INCLUDE, Schema

    module_name, _, class_name = path.partition(":")
    where = f"Source '{source}', key 'schema'"
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as exc:  # whatever the team's module does when it is imported
        raise SourcesFileError(f"{where}: '{path}' cannot be imported: {type(exc).__name__}: {exc}.") from exc
    if not (isinstance(found, type) and issubclass(found, Schema)):
        raise SourcesFileError(f"{where}: '{path}' is not a marshmallow Schema.")
    # Providers add fields without asking; a schema that means to refuse them says so in its Meta.
    says_itself = hasattr(found.Meta, "unknown")
    try:
        return found() if says_itself else found(unknown=INCLUDE)
    except Exception as exc:
        raise SourcesFileError(f"{where}: '{path}' cannot be used: {type(exc).__name__}: {exc}.") from exc
