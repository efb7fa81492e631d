"""Reads a template's intrinsic functions, for what a native deployment is configured with and no stack holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_NOTHING = object()
_PLACE = re.compile(r"\$\{([^}!]+)\}")


@dataclass
class Resolver:
    """`values` are what a Ref gives, or a Fn::GetAtt (as `Resource.Attribute`); `conditions` are the template's.

    A KeyError names what is not known here.
    """

    values: Mapping[str, str]
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self, node: Any) -> Any:
        """The node without functions; what is AWS::NoValue is left out."""
        if isinstance(node, list):
            return [item for item in map(self.resolve, node) if item is not _NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self._apply(name, argument)
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not _NOTHING}

    def holds(self, condition: str) -> bool:
        return bool(self.resolve(self.conditions[condition]))

    def _apply(self, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return _NOTHING if argument == "AWS::NoValue" else self.values[argument]
            case "Fn::GetAtt":
                return self.values[".".join(argument)]
            case "Fn::Sub":
                return _PLACE.sub(lambda place: self.values[place[1]], argument)
            case "Fn::If":
                condition, yes, no = argument
                return self.resolve(yes if self.holds(condition) else no)
            case "Fn::Equals":
                left, right = map(self.resolve, argument)
                return str(left) == str(right)
            case "Fn::Not":
                return not self.resolve(argument[0])
            case "Fn::Select":
                index, items = argument
                items = self.resolve(items)
                # A list parameter is a text with commas.
                return (items.split(",") if isinstance(items, str) else items)[int(index)]
        raise KeyError(name)
