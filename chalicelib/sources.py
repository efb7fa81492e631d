"""Which sources exist: loads the sources file, checks it, and gives each source what the ack path needs."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate

from chalicelib.errors import SourcesFileError
from chalicelib.naming import HEADER_NAME, Locator
from chalicelib.providers import PROVIDERS
from chalicelib.signatures import Scheme

# API Gateway does not decode path parameters: a name is what needs no decoding.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?", re.ASCII)
# Compared whole, in lower case and without parameters: anything else would match no delivery.
_CONTENT_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+\Z", re.ASCII)


@dataclass(frozen=True)
class Source:
    """A named place that events come from, ready to use."""

    name: str
    provider: str
    scheme: Scheme
    needs_secret: bool
    dedup: Locator | None
    type: Locator | None
    content_types: frozenset[str]
    form_field: str | None
    schema: Schema | None


def load_sources(path: Path) -> dict[str, Source]:
    """The sources that the file declares, by name. Raises SourcesFileError with a sentence."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SourcesFileError(f"The sources file {path} cannot be read: {exc}.") from exc
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SourcesFileError(f"The sources file {path} is not TOML: {exc}.") from exc
    return {name: _source(name, table) for name, table in tables.items()}


def source_names(path: Path) -> frozenset[str]:
    """The names that the file declares, for whoever needs no more of it; none where it cannot be read."""
    try:
        return frozenset(tomllib.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return frozenset()


def _source(name: str, table: Any) -> Source:
    if not isinstance(table, dict):
        raise SourcesFileError(f"'{name}' stands outside of a source: every key belongs under a [source-name].")
    if not _NAME.fullmatch(name):
        raise SourcesFileError(f"Source '{name}': a name has 1 to 64 of a-z, 0-9 and '-', and no '-' at its ends.")
    try:
        settings: dict[str, Any] = _SourceSchema().load(table)
    except ValidationError as exc:
        raise SourcesFileError(f"Source '{name}', {_first_mistake(exc)}") from exc
    provider_name = settings["provider"]
    provider = PROVIDERS[provider_name]
    options = {key: settings[key] for key in _OPTIONS if key in settings}
    for key in options:
        if key not in provider.options:
            raise SourcesFileError(f"Source '{name}', key '{key}': provider '{provider_name}' has no such setting.")
    if provider.signs_id and "dedup" in settings:
        raise SourcesFileError(
            f"Source '{name}', key 'dedup': provider '{provider_name}' signs the id that is its key."
        )
    return Source(
        name=name,
        provider=provider_name,
        scheme=provider.scheme(**options),
        needs_secret=provider.needs_secret,
        dedup=settings.get("dedup", provider.dedup),
        type=settings.get("type", provider.type),
        content_types=frozenset(settings.get("content_types", provider.content_types)),
        form_field=provider.form_field,
        schema=_payload_schema(name, settings["schema"]) if "schema" in settings else None,
    )


class _LocatorField(fields.Field[Locator]):
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Locator:
        try:
            return Locator.parse(value if isinstance(value, str) else str(value))
        except ValueError as exc:
            raise ValidationError(str(exc)) from exc


def _one_of(*choices: str) -> fields.String:
    listed = ", ".join(choices)
    return fields.String(validate=validate.OneOf(choices, error=f"'{{input}}' is not one of {listed}."))


_OPTIONS = ("header", "prefix", "algorithm", "encoding", "secret_encoding", "tolerance_seconds")


class _SourceSchema(Schema):
    provider = fields.String(
        required=True,
        validate=validate.OneOf(
            PROVIDERS, error=f"there is no provider '{{input}}'; known are {', '.join(PROVIDERS)}."
        ),
        error_messages={"required": "is missing: every source names its kind of sender."},
    )
    dedup = _LocatorField()
    type = _LocatorField()
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
    encoding = _one_of("hex", "base64")
    secret_encoding = _one_of("text", "hex", "base64")
    tolerance_seconds = fields.Integer(
        strict=True, validate=validate.Range(1, 86400, error="must lie between 1 and 86400.")
    )

    error_messages = {"unknown": "is not a setting of a source."}  # noqa: RUF012 -- marshmallow types it so


def _first_mistake(error: ValidationError) -> str:
    assert isinstance(error.messages, dict)
    key, problem = next(iter(error.messages.items()))
    while isinstance(problem, dict):  # a list's element: {0: ["…"]}
        problem = next(iter(problem.values()))
    return f"key '{key}': {problem[0]}"


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
