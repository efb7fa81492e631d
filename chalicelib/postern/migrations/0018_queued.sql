-- When the queue had an event: most of what its sender waits for lies between its receipt and that.
ALTER TABLE postern.events ADD COLUMN queued_at timestamptz;

COMMENT ON COLUMN postern.events.queued_at IS
  'When SQS had its message, by SQS''s clock. NULL where its row is of a message that was sent later, after an outage, say.';

-- A day that was taken out before there was a column has no such one: what is kept of it has those that both have.
CREATE OR REPLACE FUNCTION postern.drop_retired(parent text, name text, settled_since timestamptz) RETURNS bigint
LANGUAGE plpgsql STRICT AS $$
DECLARE
  kept     bigint;
  columns  text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('postern.ensure_partitions'));
  IF to_regclass(format('postern.%I', name)) IS NULL THEN
    RETURN 0;
  END IF;
  SELECT string_agg(quote_ident(own.attname), ', ' ORDER BY own.attnum) INTO columns
  FROM pg_catalog.pg_attribute AS own
  JOIN pg_catalog.pg_attribute AS retired
    ON retired.attrelid = to_regclass(format('postern.%I', name)) AND retired.attname = own.attname
    AND NOT retired.attisdropped
  WHERE own.attrelid = to_regclass(format('postern.%I', parent)) AND own.attnum > 0 AND NOT own.attisdropped
    AND own.attgenerated = '';
  EXECUTE format(
    'INSERT INTO postern.%1$I (%4$s) SELECT %4$s FROM postern.%2$I AS retired WHERE %3$s ON CONFLICT DO NOTHING', parent, name,
    CASE parent
      WHEN 'events' THEN 'processed_at >= $1'
      ELSE format('EXISTS (SELECT FROM postern.events AS event WHERE event.id = retired.%I)', postern.partition_key(parent))
    END, columns)
    USING settled_since;
  GET DIAGNOSTICS kept = ROW_COUNT;
  EXECUTE format('DROP TABLE postern.%I', name);
  RETURN kept;
END
$$;

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
