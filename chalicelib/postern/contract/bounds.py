"""Bounds that AWS sets, and that more than one wing keeps to."""

# Lambda takes 6 MB a request; API Gateway's own envelope and the escapes in the body take their share of it, so a
# larger body is answered 413 by API Gateway before it gets here.
MAX_BODY_BYTES = 6_000_000

# One body from the bucket.
MAX_FETCH_SECONDS = 8.0

# The queue keeps a message for 10 days, the dead letters for 14 (infra/resources.yaml): for so long it may come back.
QUEUES_KEEP_DAYS = 24
