"""Issues: failed attempts, grouped; a person acknowledges or resolves one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields, validate

from chalicelib.postern.contract.errors import NotFound
from chalicelib.postern.operating.filters import Whole
from chalicelib.postern.operating.issues.queries import Issues
from chalicelib.postern.operating.operator import Action

STATES = ("open", "acknowledged", "resolved")


def views(issues: Issues) -> dict[str, Action]:
    def listing(state: str | None, before: str | None, limit: int) -> Mapping[str, Any]:
        return {"issues": issues.issues(state=state, before=before, limit=limit)}

    def show(id: str) -> Mapping[str, Any]:
        return {"issue": _known(issues, id)}

    return {"issues": Action(listing, _Listing()), "show_issue": Action(show, _Id())}


def actions(issues: Issues) -> dict[str, Action]:
    def set_state(id: str, state: str) -> Mapping[str, Any]:
        issues.set_issue(_known(issues, id)["id"], state)
        return {"issue": _known(issues, id)}

    return {"set_issue": Action(set_state, _State())}


def _known(issues: Issues, id: str) -> dict[str, Any]:
    found = issues.issue(id)
    if found is None:
        raise NotFound(f"There is no issue {id!r}.")
    return found


class _Listing(Schema):
    state = fields.String(load_default=None, allow_none=True, validate=validate.OneOf(STATES))
    before = fields.String(
        load_default=None, allow_none=True, validate=validate.Regexp(r"[01]\.[0-9]{1,16}\.[0-9a-f]{12}\Z")
    )
    limit = Whole(load_default=20, validate=validate.Range(1, 1000))


class _Id(Schema):
    # The beginning of one is enough, as of a commit's.
    id = fields.String(required=True, validate=validate.Regexp(r"[0-9a-f]{4,12}\Z"))


class _State(_Id):
    state = fields.String(required=True, validate=validate.OneOf(STATES))
