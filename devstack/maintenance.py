"""The container of the maintenance function: invokes it as its schedule does, whenever a line comes on standard input.

It stays warm, as a container does; to begin a new one each time takes longer than all that it does.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from chalicelib.postern.contract.errors import PosternError
from devstack.worker import Context

_TIMEOUT_SECONDS = 300


def schedule_event() -> dict[str, Any]:
    """As EventBridge sends it."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "000000000000",
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": "us-east-1",
        "resources": [],
        "detail": {},
    }


def main() -> None:
    import app

    # However many times it was told since it last looked, once is enough. At the end of the input it ends.
    while os.read(sys.stdin.fileno(), 4096):
        faulthandler.dump_traceback_later(_TIMEOUT_SECONDS, exit=True)
        with suppress(PosternError):  # its line says so
            app.maintenance(schedule_event(), Context(_TIMEOUT_SECONDS, "postern-local-maintenance"))
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
