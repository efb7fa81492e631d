-- Partitions, sizes and retention.

-- name: ensure_partitions
SELECT postern.ensure_partitions(%(days_ahead)s)
