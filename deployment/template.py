"""The template of the packaged deployment: what is merged into Chalice's, and what no merge can say."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from deployment.project import FUNCTIONS

Template = dict[str, Any]

# What both ways of deploying create, and what the packaged one has besides.
SHARED = ("resources.yaml", "monitoring.yaml")
PACKAGED = (*SHARED, "application.yaml")

_SNAPSTART_FROM = (3, 12)
# SAM's name for the alias that it publishes with the function.
_ALIAS = "APIHandler.Alias"


def load(*files: Path) -> Template:
    """One template of several, merged in this order."""
    template: Template = {}
    for file in files:
        template = merged(template, yaml.safe_load(file.read_text("utf-8")))
    return template


def merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> Template:
    """As Chalice merges: mappings are joined, everything else is replaced."""
    result = dict(base)
    for key, value in extra.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def dump(template: Template) -> str:
    return yaml.dump(template, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


def completed(template: Template, *, stage: str, processor_timeout: int, python: tuple[int, int]) -> Template:
    """Chalice's merged template, with what depends on the stage and on the Python that packages.

    The API is called through the alias `live` alone: a version of the function that is not ready is never called,
    and what is kept warm is what answers.
    """
    template = deepcopy(template)
    template["Description"] = f"Postern, stage {stage}: POST in, Postgres out"
    set_stage(template, stage, processor_timeout, python)
    definition = template["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]
    # Of every content type the exact bytes: as text, what is no UTF-8 would arrive as U+FFFD, verified or not. The list
    # in the app stays Chalice's, which takes part in answers.
    definition["x-amazon-apigateway-binary-media-types"] = ["*/*"]
    for integration in _integrations(definition):
        uri = integration["uri"]["Fn::Sub"]
        assert "${APIHandler.Arn}" in uri, "Chalice's template calls another function than it used to."
        integration["uri"] = {"Fn::Sub": [uri.replace("${APIHandler.Arn}", "${Live}"), {"Live": {"Ref": _ALIAS}}]}
    return template


def set_stage(template: Template, stage: str, processor_timeout: int, python: tuple[int, int]) -> None:
    """Its parameters become this stage's; AWS asks for six times the processor's timeout (in seconds)."""
    parameters = template["Parameters"]
    parameters["Stage"] |= {"Default": stage, "AllowedValues": [stage]}
    parameters["VisibilityTimeout"] |= {"Default": 6 * processor_timeout, "MinValue": 6 * processor_timeout}
    if "SnapStart" in parameters and python < _SNAPSTART_FROM:
        parameters["SnapStart"] |= {
            "AllowedValues": ["off"],
            "ConstraintDescription": "off: this package is for an older Python than SnapStart takes (3.12)",
        }


def name_release(template: Template, release: str) -> None:
    """Every function knows which release it is of.

    A new version of the API function is published when one of its own properties changes, and not when its layer or a
    parameter does (serverless-application-model#3610, #3820): the alias would go on with the old code. This is a
    property that changes with each of them.
    """
    for name, _ in FUNCTIONS.values():
        template["Resources"][name]["Properties"]["Environment"]["Variables"]["RELEASE"] = release
    template["Outputs"]["Release"] = {"Value": release}


def say_who_may_send(template: Template, ranges: str) -> None:
    """In the API's definition: it is deployed anew when that changes, and not when a parameter in it does."""
    definition = template["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]
    definition["info"]["description"] = f"Webhooks are taken from {ranges or 'everywhere'}."


def this_python() -> tuple[int, int]:
    """The Python that packages, which is the one that Chalice deploys for."""
    return sys.version_info[:2]


def _integrations(definition: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in definition["paths"].values():
        for method in methods.values():
            if "x-amazon-apigateway-integration" in method:
                integration = method["x-amazon-apigateway-integration"]
                if "uri" in integration:  # the one that answers CORS preflights calls nothing
                    yield integration


class _Plain(yaml.SafeDumper):
    """Without anchors, which CloudFormation does not read everywhere."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
