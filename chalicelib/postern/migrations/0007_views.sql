-- What people ask most, as views. Like postern.events they are a public contract: columns are added, never renamed or
-- dropped (docs/sql.md).

CREATE VIEW postern.unresolved AS
SELECT event.id,
       event.source,
       event.type,
       event.status,
       event.attempts,
       event.received_at,
       attempt.started_at AS last_tried_at,
       attempt.handler,
       attempt.error_class,
       attempt.message,
       attempt.issue_id
FROM postern.events AS event
LEFT JOIN LATERAL (
  SELECT started_at, handler, error_class, message, issue_id
  FROM postern.attempts
  WHERE event_id = event.id AND issue_id IS NOT NULL
  ORDER BY number DESC
  LIMIT 1
) AS attempt ON true
WHERE event.status IN ('failed', 'dead');

COMMENT ON VIEW postern.unresolved IS 'Events that are not processed, with their latest failure.';

CREATE VIEW postern.latency AS
SELECT event.id,
       event.source,
       event.type,
       event.received_at,
       first.started_at - event.received_at AS waited,
       make_interval(secs => last.duration_ms / 1000) AS processing,
       event.processed_at - event.received_at AS total
FROM postern.events AS event
JOIN postern.attempts AS first ON first.event_id = event.id AND first.number = 1
JOIN postern.attempts AS last ON last.event_id = event.id AND last.number = event.attempts
WHERE event.status IN ('processed', 'stale');

COMMENT ON VIEW postern.latency IS
  'Of processed events: how long they waited for their first try, how long the last one took, and all of it.';

CREATE VIEW postern.hourly AS
SELECT date_trunc('hour', received_at) AS hour,
       source,
       type,
       count(*) AS events,
       count(*) FILTER (WHERE status = 'processed') AS processed,
       count(*) FILTER (WHERE status = 'stale') AS stale,
       count(*) FILTER (WHERE status = 'failed') AS failed,
       count(*) FILTER (WHERE status = 'dead') AS dead,
       sum(attempts) AS attempts
FROM postern.events
GROUP BY date_trunc('hour', received_at), source, type;

COMMENT ON VIEW postern.hourly IS 'Stored events by the hour in which they were received, source and type.';
