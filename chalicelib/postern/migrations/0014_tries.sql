-- A first try that succeeds, which is nearly every one, has no row in postern.attempts any more: its event says it all.

ALTER TABLE postern.events ADD COLUMN duration_ms real;

COMMENT ON COLUMN postern.events.duration_ms IS
  'How long the try took that processed it; NULL where none did, and for events from before this column.';
COMMENT ON TABLE postern.attempts IS
  'One row a try at processing an event, committed with what it did; but for a first try that succeeded (postern.tries).';

CREATE VIEW postern.tries AS
SELECT event_id, number, started_at, duration_ms, trigger, outcome, handler, error_class, message, traceback, issue_id,
       replay_id
FROM postern.attempts
UNION ALL
SELECT id, 1, processed_at, duration_ms, 'first', status, NULL, NULL, NULL, NULL, NULL, NULL
FROM postern.events
WHERE attempts = 1 AND status IN ('processed', 'stale') AND duration_ms IS NOT NULL;

COMMENT ON VIEW postern.tries IS 'Every try at processing an event.';

CREATE OR REPLACE VIEW postern.latency AS
SELECT event.id,
       event.source,
       event.type,
       event.received_at,
       coalesce(first.started_at, event.processed_at) - event.received_at AS waited,
       make_interval(secs => coalesce(last.duration_ms, event.duration_ms) / 1000) AS processing,
       event.processed_at - event.received_at AS total
FROM postern.events AS event
LEFT JOIN postern.attempts AS first ON first.event_id = event.id AND first.number = 1
LEFT JOIN postern.attempts AS last ON last.event_id = event.id AND last.number = event.attempts
WHERE event.status IN ('processed', 'stale') AND (last.event_id IS NOT NULL OR event.duration_ms IS NOT NULL);
