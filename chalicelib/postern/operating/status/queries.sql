-- What an operator sees first.

-- name: attention
-- Whether every writer is refused; the rest is for a person to look at. What waits is what no table has yet.
SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean AS read_only,
       (SELECT min(minute) FROM postern.ledger
        WHERE missing > 0 AND missing > (
          SELECT count(*) FROM postern.postponed AS late
          WHERE late.again_at > now() AND late.source = ledger.source
            AND date_trunc('minute', postern.uuid7_time(late.event_id)) = ledger.minute)) AS waiting_since,
       (SELECT count(*) FROM postern.issues WHERE state = 'open') AS open_issues,
       (SELECT count(*) FROM postern.drift WHERE accepted_at IS NULL) AS open_drift,
       (SELECT count(*) FROM postern.replays WHERE state = 'running') AS running_replays

-- name: handlers_that_postpone
-- By handlers, which most of them wait for; of each its latest reason. Of those whose time has come the queue tells.
SELECT handler, count(*) AS events, min(first_at) AS since, min(again_at) AS next,
       (array_agg(reason ORDER BY last_at DESC))[1] AS reason
FROM postern.postponed
WHERE again_at > now()
GROUP BY handler
ORDER BY events DESC, handler

-- name: note_duty
INSERT INTO postern.duties AS known (name, done_at, failed_at, reason)
VALUES (%(name)s, CASE WHEN %(reason)s::text IS NULL THEN now() END,
        CASE WHEN %(reason)s::text IS NOT NULL THEN now() END, %(reason)s)
ON CONFLICT (name) DO UPDATE
SET done_at = coalesce(excluded.done_at, known.done_at), failed_at = coalesce(excluded.failed_at, known.failed_at),
    reason = excluded.reason

-- name: failing_duties
-- One that no longer exists, or with all of maintenance at rest, is not failing.
SELECT name, reason, failed_at, done_at FROM postern.duties
WHERE reason IS NOT NULL AND failed_at > now() - interval '1 hour'
ORDER BY name

-- name: count_statuses
SELECT status, count(*) AS number FROM postern.events WHERE status <> 'processed' GROUP BY status

-- name: oldest_failed
SELECT id, source, type, attempts, split_part(error, E'\n', 1) AS error, received_at
FROM postern.events
WHERE status <> 'processed' AND status = 'failed'
ORDER BY id
LIMIT 1

-- name: identity_of_late
-- Of the last day: equal bytes under other ids, equal ids over other bytes, and what only its bytes made a repetition.
SELECT (SELECT count(*) FROM postern.events
        WHERE same_body_as IS NOT NULL AND id >= postern.uuid7_floor(now() - interval '1 day')) AS same_bytes,
       (SELECT count(*) FROM postern.duplicates
        WHERE why = 'same_id_other_bytes' AND id >= postern.uuid7_floor(now() - interval '1 day')) AS other_bytes,
       (SELECT count(*) FROM postern.duplicates
        WHERE why = 'same_bytes' AND id >= postern.uuid7_floor(now() - interval '1 day')) AS bytes_alone

-- name: last_seen
-- By the ledger, too: a source is not quiet while its events wait in the queue. A day is 23 hours that are counted and
-- the two parts of hours at its ends, or one; what last came is looked for in the last hour that has any.
WITH counted AS (
  SELECT source, sum(events) AS events, max(hour) AS last
  FROM postern.counts
  WHERE hour > %(now)s - interval '1 day'
  GROUP BY source
), rest AS (
  SELECT source, count(*) AS events
  FROM postern.events
  WHERE id >= postern.uuid7_floor(%(now)s - interval '1 day')
    AND id < postern.uuid7_floor(date_trunc('hour', %(now)s - interval '23 hours', 'UTC'))
  GROUP BY source
), recent AS (
  SELECT source, count(*) AS events, max(received_at) AS last
  FROM postern.events
  WHERE id >= postern.uuid7_floor(%(now)s - interval '1 hour')
  GROUP BY source
)
SELECT wanted.source,
       greatest(
         (SELECT max(minute) FROM postern.ledger WHERE ledger.source = wanted.source),
         (SELECT last_minute FROM postern.source_hours WHERE source_hours.source = wanted.source
          ORDER BY hour DESC LIMIT 1),
         coalesce(recent.last, (
           SELECT max(received_at) FROM postern.events
           WHERE source = wanted.source AND id >= postern.uuid7_floor(counted.last)
             AND id < postern.uuid7_floor(counted.last + interval '1 hour')))
       ) AS last_seen,
       coalesce(recent.events, 0) AS hour,
       (coalesce(counted.events, 0) + coalesce(rest.events, 0))::bigint AS day
FROM unnest(%(sources)s::text[]) AS wanted (source)
LEFT JOIN counted USING (source)
LEFT JOIN rest USING (source)
LEFT JOIN recent USING (source)
ORDER BY wanted.source
