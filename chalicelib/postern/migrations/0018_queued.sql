-- When the queue had an event: what lies between its receipt and that is what its sender waited for.
ALTER TABLE postern.events ADD COLUMN queued_at timestamptz;

COMMENT ON COLUMN postern.events.queued_at IS
  'When SQS had its message, by SQS''s clock. NULL where its row is of a message that was sent later, after an outage, say.';

CREATE OR REPLACE VIEW postern.latency AS
SELECT event.id,
       event.source,
       event.type,
       event.received_at,
       coalesce(first.started_at, event.processed_at) - event.received_at AS waited,
       make_interval(secs => coalesce(last.duration_ms, event.duration_ms) / 1000) AS processing,
       event.processed_at - event.received_at AS total,
       -- Two clocks: they may be some milliseconds apart.
       CASE WHEN event.queued_at IS NOT NULL
            THEN greatest(event.queued_at - event.received_at, interval '0') END AS ack
FROM postern.events AS event
LEFT JOIN postern.attempts AS first ON first.event_id = event.id AND first.number = 1
LEFT JOIN postern.attempts AS last ON last.event_id = event.id AND last.number = event.attempts
WHERE event.status IN ('processed', 'stale') AND (last.event_id IS NOT NULL OR event.duration_ms IS NOT NULL);
