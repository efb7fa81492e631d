-- What an operator sees first.

-- name: attention
SELECT (SELECT count(*) FROM postern.issues WHERE state = 'open') AS open_issues,
       (SELECT count(*) FROM postern.drift WHERE accepted_at IS NULL) AS open_drift,
       (SELECT count(*) FROM postern.replays WHERE state = 'running') AS running_replays

-- name: count_statuses
SELECT status, count(*) AS number FROM postern.events WHERE status <> 'processed' GROUP BY status

-- name: oldest_failed
SELECT id, source, type, attempts, split_part(error, E'\n', 1) AS error, received_at
FROM postern.events
WHERE status <> 'processed' AND status = 'failed'
ORDER BY id
LIMIT 1

-- name: identity_of_late
-- Of the last day: equal bytes under other ids, and equal ids over other bytes.
SELECT (SELECT count(*) FROM postern.events
        WHERE same_body_as IS NOT NULL AND id >= postern.uuid7_floor(now() - interval '1 day')) AS same_bytes,
       (SELECT count(*) FROM postern.duplicates
        WHERE why = 'same_id_other_bytes' AND id >= postern.uuid7_floor(now() - interval '1 day')) AS other_bytes

-- name: last_seen
-- By the ledger, too: a source is not quiet while its events wait in the queue.
SELECT wanted.source,
       greatest(
         (SELECT max(minute) FROM postern.ledger WHERE ledger.source = wanted.source),
         (SELECT last_minute FROM postern.source_hours WHERE source_hours.source = wanted.source
          ORDER BY hour DESC LIMIT 1),
         recent.last
       ) AS last_seen,
       coalesce(recent.hour, 0) AS hour,
       coalesce(recent.day, 0) AS day
FROM unnest(%(sources)s::text[]) AS wanted (source)
LEFT JOIN (
  SELECT source, max(received_at) AS last, count(*) AS day,
         count(*) FILTER (WHERE id >= postern.uuid7_floor(%(now)s - interval '1 hour')) AS hour
  FROM postern.events
  WHERE id >= postern.uuid7_floor(%(now)s - interval '1 day')
  GROUP BY source
) AS recent USING (source)
ORDER BY wanted.source
