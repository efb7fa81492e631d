"""Work that is cut off says how it goes on, whatever cut it off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from chalicelib.postern.contract.errors import PosternError
from cli import dead, replays
from cli.main import main

ID = "01a20930-2839-77ff-a554-656e82a110af"
RUNNING = {"id": ID, "state": "running", "total": 20, "moved": 5, "states": {"waiting": 15, "processed": 5}}


@dataclass
class CutOff:
    """Answers, and is away when it is to go on."""

    kind: str
    by: BaseException
    asked: list[str] = field(default_factory=list)

    def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(request["action"])
        if request["action"].startswith("advance"):
            raise self.by
        return {"replay": RUNNING | {"kind": self.kind}}


@pytest.mark.parametrize(
    ("by", "code", "said"),
    [(PosternError("It is away."), 1, "postern: It is away."), (KeyboardInterrupt(), 130, "")],
)
@pytest.mark.parametrize(("kind", "command"), [("replay", "replay"), ("redrive", "dead redrive")])
def test_how_it_goes_on_is_said(
    kind: str,
    command: str,
    by: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("POSTERN_STAGE", raising=False)
    on = CutOff(kind, by)
    for module in (replays, dead):
        monkeypatch.setattr(module, "operator", lambda: on)
    assert main([*command.split(), "--resume", ID]) == code
    error = capsys.readouterr().err
    assert f"It is not done. It goes on with: postern {command} --resume {ID}\n" in error
    assert said in error
