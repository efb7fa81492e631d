"""One run of the maintenance function, as its schedule invokes it."""

from __future__ import annotations

import sys
import uuid
from datetime import UTC, datetime

from chalicelib.errors import PosternError
from devstack.worker import Context

_TIMEOUT_SECONDS = 300


def main() -> int:
    import app

    event = {
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
    try:
        app.maintenance(event, Context(_TIMEOUT_SECONDS, "postern-local-maintenance"))
    except PosternError:
        return 1  # its line says so
    return 0


if __name__ == "__main__":
    sys.exit(main())
