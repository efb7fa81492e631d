"""Which sources exist: loads the sources file, checks it, and gives each source what the ack path needs."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate

from chalicelib.postern.contract.deliveries import Delivery, Reply, is_credential
from chalicelib.postern.contract.envelope import MAX_WINDOW_SECONDS
from chalicelib.postern.contract.errors import SourcesFileError
from chalicelib.postern.contract.payloads import Format, format_of
from chalicelib.postern.receiving.identity import Rule
from chalicelib.postern.receiving.naming import HEADER_NAME, Place
from chalicelib.postern.receiving.providers import Provider, provider, provider_names
from chalicelib.postern.receiving.schemes import Scheme, scheme_class

# The sources' secret holds a source's own secrets under its name, and under its name with these what a handshake asks
# for, and, in a local run, what only a sender has. No source's name has a dot.
VERIFY_TOKEN = ".verify_token"
SIGNING_KEY = ".signing_key"
# Until when the operator awaits a secret that the provider brings itself: a time.
AWAITED_UNTIL = ".awaited_until"

# API Gateway does not decode path parameters: a name is what needs no decoding.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?", re.ASCII)
# Compared whole, in lower case and without parameters: anything else would match no delivery.
_CONTENT_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+\Z", re.ASCII)


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
        settings: dict[str, Any] = _source_schema().load(table)
    except ValidationError as exc:
        raise SourcesFileError(f"Source '{name}', {_first_mistake(exc)}{_nearest(table, exc)}") from exc
    kind = provider(settings["provider"])
    scheme = _scheme(name, kind, {key: settings[key] for key in _OPTIONS if key in settings})
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
            same_body=settings["same_body"],
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
        quarantine=settings["quarantine"],
        hidden_headers=frozenset(name.lower() for name in settings["hidden_headers"]),
        schema=_payload_schema(name, settings["schema"]) if "schema" in settings else None,
    )
    if made.signs_words and (
        {format_of(each) for each in content_types} != {Format.JSON} or settings.get("format", "json") != "json"
    ):
        raise SourcesFileError(
            f"Source '{name}', key 'content_types': provider '{kind.name}' has a handshake that signs a word for "
            "whoever asks, which could be such a body. It takes JSON alone."
        )
    _check_hidden(made)
    return made


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


class _PlaceField(fields.Field[Place]):
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Place:
        try:
            return Place.parse([str(part) for part in value] if isinstance(value, list) else str(value))
        except ValueError as exc:
            raise ValidationError(str(exc)) from exc


class _DedupField(_PlaceField):
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        return value if value == "none" else super()._deserialize(value, attr, data, **kwargs)


class _ItemsField(fields.String):
    """A path, or false: what comes is one event, though the provider mostly sends several."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        return None if value is False else super()._deserialize(value, attr, data, **kwargs)


class _ReplyField(fields.Field[Reply]):
    """A status, or a table of `status`, `body` and `content_type`."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Reply:
        table = value if isinstance(value, dict) else {"status": value}
        wrong = ValidationError('is neither a status, 200 say, nor {status = 200, body = "…", content_type = "…"}.')
        if not table.keys() <= {"status", "body", "content_type"} or "status" not in table:
            raise wrong
        status, texts = table["status"], [table.get(name, "") for name in ("body", "content_type")]
        if isinstance(status, bool) or not isinstance(status, int) or not all(isinstance(text, str) for text in texts):
            raise wrong
        if not 200 <= status <= 299:
            raise ValidationError(f"{status} tells a sender that it failed: a status lies between 200 and 299.")
        if status in (204, 205) and texts[0]:
            raise ValidationError(f"An answer with status {status} has no body.")
        if not all(text.isprintable() for text in texts[1:]) or len(texts[0]) > 10_000:
            raise wrong
        return Reply(**table)


_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class _Duration(fields.Field[int]):
    """Seconds, or a number and its unit: `90`, `"15m"`, `"12h"`, `"7d"`."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self._longest = longest

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", str(value), re.ASCII)
        if found is None or isinstance(value, bool):
            raise ValidationError(f'\'{value}\' is no duration: a number of seconds, or as in "15m", "12h", "7d".')
        seconds = int(found[1]) * _UNITS[found[2] or "s"]
        if not 1 <= seconds <= self._longest:
            raise ValidationError(f"must lie between 1 s and {self._longest // 86_400} days.")
        return seconds


def _one_of(*choices: str) -> fields.String:
    listed = ", ".join(choices)
    return fields.String(validate=validate.OneOf(choices, error=f"'{{input}}' is not one of {listed}."))


_OPTIONS = (
    "header",
    "prefix",
    "algorithm",
    "encoding",
    "secret_encoding",
    "signed",
    "separator",
    "timestamp",
    "unit",
    "tolerance_seconds",
)


@cache
def _source_schema() -> Schema:
    return _SourceSchema()


class _SourceSchema(Schema):
    provider = fields.String(
        required=True,
        validate=validate.OneOf(
            provider_names(), error=f"there is no provider '{{input}}'; known are {', '.join(provider_names())}."
        ),
        error_messages={"required": "is missing: every source names its kind of sender."},
    )
    dedup = _DedupField()
    dedup_window = _Duration(MAX_WINDOW_SECONDS)
    same_body = fields.String(
        load_default="mark",
        validate=validate.OneOf(["mark", "duplicate"], error="'{input}' is not one of mark, duplicate."),
    )
    type = _PlaceField()
    answer = _ReplyField()
    items = _ItemsField(allow_none=False)
    format = _one_of("json", "json-lines", "form", "bytes")
    empty_body = fields.Boolean(truthy={True}, falsy={False})
    url = fields.URL(schemes={"http", "https"}, require_tld=False, error_messages={"invalid": "is not a URL."})
    # From before 0.2: an id decides now, whether or not it is signed.
    trust_unsigned_id = fields.Boolean(truthy={True}, falsy={False})
    quarantine = fields.Boolean(load_default=False, truthy={True}, falsy={False})
    hidden_headers = fields.List(
        fields.String(
            validate=validate.Regexp(re.compile(rf"{HEADER_NAME.pattern}\Z"), error="'{input}' is not a header's name.")
        ),
        load_default=list,
    )
    content_types = fields.List(
        fields.String(validate=validate.Regexp(_CONTENT_TYPE, error="'{input}' is not a content type.")),
        validate=validate.Length(min=1, error="the list is empty."),
    )
    schema = fields.String(
        validate=validate.Regexp(
            r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", error="'{input}' is not 'package.module:ClassName'."
        )
    )
    header = fields.String(
        validate=validate.Regexp(re.compile(rf"{HEADER_NAME.pattern}\Z"), error="'{input}' is not a header's name.")
    )
    prefix = fields.String()
    algorithm = _one_of("sha1", "sha256", "sha512")
    encoding = _one_of("hex", "base64", "base64url")
    secret_encoding = _one_of("text", "hex", "base64")
    signed = fields.String(
        validate=validate.Regexp(
            re.compile(r"(?=.*\{body\})(?:[^{}]|\{(?:body|timestamp|url|method)\})+\Z", re.DOTALL),
            error="'{input}' is not a template with {{body}}.",
        )
    )
    separator = fields.String(validate=validate.Length(min=1, error="is empty."))
    timestamp = fields.String(
        validate=validate.Regexp(
            r"^(header:[A-Za-z0-9-]+|entry:.+|body:[^.]+)\Z",
            error="'{input}' is not 'header:NAME', 'entry:PREFIX' or 'body:KEY'.",
        )
    )
    unit = _one_of("s", "ms", "iso")
    tolerance_seconds = fields.Integer(
        strict=True, validate=validate.Range(1, 604_800, error="must lie between 1 and 604800.")
    )

    error_messages = {"unknown": "is not a setting of a source."}  # noqa: RUF012 -- marshmallow types it so


def _first_mistake(error: ValidationError) -> str:
    assert isinstance(error.messages, dict)
    key, problem = next(iter(error.messages.items()))
    while isinstance(problem, dict):  # a list's element: {0: ["…"]}
        problem = next(iter(problem.values()))
    return f"key '{key}': {problem[0]}"


def _nearest(table: Mapping[str, Any], error: ValidationError) -> str:
    """What may have been meant by a provider or a setting that there is none of."""
    assert isinstance(error.messages, dict)
    key = next(iter(error.messages))
    if key == "provider":
        wrong, known = str(table.get(key)), provider_names()
    elif key not in _source_schema().fields:
        wrong, known = key, list(_source_schema().fields)
    else:
        return ""
    from difflib import get_close_matches

    found = get_close_matches(wrong.lower(), known, n=1, cutoff=0.6)
    return f" Did you mean '{found[0]}'?" if found else ""


def _payload_schema(source: str, path: str) -> Schema:
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
