"""Writes the API's description (OpenAPI 3.1): of the requests from the schemas that check them, of the answers from
cli/answers.py.

`python -m cli.description FILE` writes it; with --check it says whether the file is what would be written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin, OpenAPIConverter
from marshmallow import fields

from chalicelib.postern.api import routes
from chalicelib.postern.api.routes import ROUTES, Route
from chalicelib.postern.operating.operator import VIEWS, Operator
from chalicelib.postern.running import wiring
from chalicelib.postern.running.version import VERSION
from cli.answers import ERRORS, RESULTS, SCHEMAS, Json, ref

ABOUT = """\
What the inbox holds, and what an operator can do with it. A request needs a token (`postern tokens make NAME`) as
`Authorization: Bearer …`, or a session, which is a cookie and changes nothing without the header `Postern-Csrf`. Tokens
of the role `read` change nothing. Lists come in pages: for the next one add what is in `next`, which is null on the
last. Times are UTC. An answer to GET has an ETag."""


def describe() -> Json:
    """The whole document."""
    operator = _operator()
    plugin = MarshmallowPlugin()
    spec = APISpec(
        title="Postern",
        version=VERSION,
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": ABOUT},
        security=[{"token": []}, {"session": []}],
    )
    spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    spec.components.security_scheme("session", {"type": "apiKey", "in": "cookie", "name": "__Host-postern_session"})
    for name, schema in SCHEMAS.items():
        spec.components.schema(name, schema)
    content = {"application/json": {"schema": ref("Error")}}
    for status, said in ERRORS.items():
        spec.components.response(f"Error{status}", {"description": said, "content": content})
    assert plugin.converter is not None
    paths: dict[str, Json] = {}
    for route in ROUTES:
        asked = {} if route.action not in operator.actions else operator.actions[route.action].arguments.fields
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, asked, plugin.converter)
    for path, operations in paths.items():
        spec.path(path, operations=operations)
    return spec.to_dict()


def _operation(route: Route, asked: Mapping[str, fields.Field[Any]], converter: OpenAPIConverter) -> Json:
    elsewhere = {*route.given, *(["id"] if "{id}" in route.path else [])}
    given = {name: field for name, field in asked.items() if name not in elsewhere}
    schemas = {name: _property(field, converter) for name, field in given.items()}
    required = [name for name, field in given.items() if field.required]
    found: Json = {
        "operationId": route.id,
        "summary": route.summary,
        "tags": [route.steps[0]],
        "parameters": [],
        "responses": _responses(route),
    }
    if route.action == routes.OPEN_SESSION:
        found["security"] = []
        schemas, required = {"token": {"type": "string"}}, ["token"]
    if route.sweeps:
        schemas["all"] = {
            "type": "boolean",
            "description": "That everything is meant.",
        }
    if "{id}" in route.path:
        found["parameters"].append(
            {"name": "id", "in": "path", "required": True, "schema": _property(asked["id"], converter)}
        )
    if route.method == "GET":
        found["parameters"] += [_parameter(name, schema, name in required) for name, schema in schemas.items()]
    elif schemas:
        body: Json = {"type": "object", "properties": schemas, "additionalProperties": False}
        if route.sweeps:
            said: dict[str, Json] = {
                name: {"not": {"type": "null"}} for name in schemas if name not in ("all", "rate", "most")
            }
            said["all"] = {"const": True}
            body["anyOf"] = [{"required": [name], "properties": {name: schema}} for name, schema in said.items()]
        if required:
            body["required"] = required
        content = {"application/json": {"schema": body}}
        found["requestBody"] = {"content": content, "required": bool(required) or route.sweeps}
    return found


def _property(field: fields.Field[Any], converter: OpenAPIConverter) -> Json:
    """Patterns as ECMA-262 writes them; what has none may have any character but NUL."""
    found: Json = converter.field2property(field)
    if "pattern" in found:
        found["pattern"] = "^" + found["pattern"].removesuffix(r"\Z") + "$"
    elif "string" in found.get("type", ()) and not found.keys() & {"enum", "format"}:
        found["pattern"] = "^[^\\u0000]*$"
    return found


def _parameter(name: str, schema: Json, required: bool) -> Json:
    """In a query there is no null; what may be anything is JSON."""
    found: Json = {"name": name, "in": "query", "required": required}
    if "type" not in schema:
        return {**found, "content": {"application/json": {"schema": schema}}}
    if isinstance(schema["type"], list):
        (kind,) = (each for each in schema["type"] if each != "null")
        schema = {**schema, "type": kind}
    if "enum" in schema:
        schema = {**schema, "enum": [each for each in schema["enum"] if each is not None]}
    schema = {key: value for key, value in schema.items() if key != "default" or value is not None}
    return {**found, "schema": schema}


def _responses(route: Route) -> Json:
    answer: Json = {
        "description": "Done.",
        "content": {"application/json": {"schema": RESULTS[route.action]}},
    }
    if route.method == "GET":
        answer["headers"] = {"ETag": {"schema": {"type": "string"}}}
    found = {"200": answer}
    if route.method == "GET":
        found["304"] = {"description": "It is what `If-None-Match` names."}
    return found | {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in _errors(route)}


def _errors(route: Route) -> Iterator[int]:
    changes = not route.looks and route.action not in VIEWS | {routes.WHO, routes.DESCRIPTION, routes.OPEN_SESSION}
    for status in ERRORS:
        if status == 403 and not (changes or route.method != "GET"):
            continue
        if status == 409 and (not changes or route.action == routes.CLOSE_SESSION):
            continue
        yield status


def _operator() -> Operator:
    # Nothing of it is performed, and nothing connected to.
    os.environ.setdefault("DATABASE_URL", "postgresql://nowhere/none")
    return wiring.operator()


def text() -> str:
    return json.dumps(describe(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the API's description, or checks it.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not options.check:
        options.file.write_text(text(), "utf-8")
    elif not options.file.exists() or options.file.read_text("utf-8") != text():
        print(f"{options.file} is not what the schemas say: make openapi", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
