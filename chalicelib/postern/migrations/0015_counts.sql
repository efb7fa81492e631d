-- Counts of events by the hour, kept beside the events (docs/sql.md, docs/decisions/0015-counts.md). Processing pays a
-- comparison for each row: what is younger than five minutes is counted from the rows themselves until maintenance has
-- counted it, and whatever changes later leaves a mark at its hour, which is then counted once more.

CREATE TABLE postern.hour_counts (
  hour      timestamptz NOT NULL,
  source    text        NOT NULL,
  type      text        NOT NULL,
  status    text        NOT NULL,
  events    bigint      NOT NULL,
  attempts  bigint      NOT NULL,
  CONSTRAINT hour_counts_pkey PRIMARY KEY (hour, source, type, status)
);

COMMENT ON TABLE postern.hour_counts IS 'What maintenance has counted; postern.hourly has what came since as well.';

-- Without a key, so that batches that mark the same hour do not wait for each other.
CREATE TABLE postern.changed_hours (
  hour  timestamptz NOT NULL
);

COMMENT ON TABLE postern.changed_hours IS 'Hours of which a row was written, changed or deleted late: to be counted once more.';

-- From `counted_from` until before `counted_to`, hour_counts has all but the marked hours. Rows that were written
-- without a mark five minutes before `looked_at` are seen by all once the transactions up to `looked_in` have ended.
CREATE TABLE postern.counting (
  only_row      boolean     NOT NULL DEFAULT true,
  counted_from  timestamptz NOT NULL,
  counted_to    timestamptz NOT NULL,
  looked_at     timestamptz NOT NULL,
  looked_in     xid8        NOT NULL,
  CONSTRAINT counting_pkey PRIMARY KEY (only_row),
  CONSTRAINT counting_has_one_row CHECK (only_row)
);

COMMENT ON TABLE postern.counting IS 'How far maintenance has come with postern.hour_counts.';

-- As before (0011), and a day that is taken out is counted once more: some of its events stay.
CREATE OR REPLACE FUNCTION postern.retire_partition(parent text, name text, keep uuid[], unresolved boolean) RETURNS bigint
LANGUAGE plpgsql STRICT AS $$
DECLARE
  kept  bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('postern.ensure_partitions'));
  PERFORM FROM postern.partitions AS p WHERE p.parent = $1 AND p.name = $2 AND p.since IS NOT NULL;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  IF parent = 'events' THEN
    INSERT INTO postern.changed_hours
    SELECT generate_series(p.since, p.until - interval '1 hour', '1 hour')
    FROM postern.partitions AS p
    WHERE p.parent = $1 AND p.name = $2;
  END IF;
  -- Whoever works with a partition holds the parent's lock: with this one, there is nothing left to wait for.
  EXECUTE format('LOCK TABLE ONLY postern.%I IN ACCESS EXCLUSIVE MODE', parent);
  EXECUTE format('ALTER TABLE postern.%I DETACH PARTITION postern.%I', parent, name);
  EXECUTE format(
    'INSERT INTO postern.%1$I (%5$s) SELECT %5$s FROM postern.%2$I WHERE %3$I = ANY ($1)%4$s', parent, name,
    postern.partition_key(parent),
    -- The first condition is that of the index which finds them.
    CASE WHEN unresolved THEN ' OR status <> ''processed'' AND status IN (''failed'', ''dead'')' ELSE '' END,
    postern.stored_columns(parent))
    USING keep;
  GET DIAGNOSTICS kept = ROW_COUNT;
  EXECUTE format('ALTER TABLE postern.%I RENAME TO %I', name, name || '_retired');
  RETURN kept;
END
$$;

-- What was counted, and what was not yet: exact at every moment, whatever maintenance has come to.
CREATE VIEW postern.counts AS
SELECT known.hour, known.source, known.type, known.status, known.events, known.attempts
FROM postern.hour_counts AS known
WHERE NOT EXISTS (SELECT FROM postern.changed_hours AS changed WHERE changed.hour = known.hour)
UNION ALL
SELECT date_trunc('hour', received_at, 'UTC'), source, type, status, count(*), sum(attempts)::bigint
FROM postern.events
WHERE id >= postern.uuid7_floor((SELECT counted_to FROM postern.counting))
GROUP BY 1, 2, 3, 4
UNION ALL
SELECT date_trunc('hour', received_at, 'UTC'), source, type, status, count(*), sum(attempts)::bigint
FROM postern.events
WHERE id < postern.uuid7_floor((SELECT counted_from FROM postern.counting))
GROUP BY 1, 2, 3, 4
UNION ALL
SELECT changed.hour, live.source, live.type, live.status, live.events, live.attempts
FROM postern.counting AS progress
CROSS JOIN (SELECT DISTINCT hour FROM postern.changed_hours) AS changed
CROSS JOIN LATERAL (
  SELECT source, type, status, count(*) AS events, sum(attempts)::bigint AS attempts
  FROM postern.events
  WHERE id >= postern.uuid7_floor(greatest(changed.hour, progress.counted_from))
    AND id < postern.uuid7_floor(least(changed.hour + interval '1 hour', progress.counted_to))
  GROUP BY 1, 2, 3
) AS live
WHERE changed.hour + interval '1 hour' > progress.counted_from AND changed.hour < progress.counted_to;

CREATE OR REPLACE VIEW postern.hourly AS
SELECT hour,
       source,
       type,
       sum(events)::bigint AS events,
       coalesce(sum(events) FILTER (WHERE status = 'processed'), 0)::bigint AS processed,
       coalesce(sum(events) FILTER (WHERE status = 'stale'), 0)::bigint AS stale,
       coalesce(sum(events) FILTER (WHERE status = 'failed'), 0)::bigint AS failed,
       coalesce(sum(events) FILTER (WHERE status = 'dead'), 0)::bigint AS dead,
       sum(attempts)::bigint AS attempts
FROM postern.counts
GROUP BY hour, source, type;

COMMENT ON VIEW postern.hourly IS 'Stored events by the hour (UTC) in which they were received, source and type.';

-- With its owner's rights: who may write events need not know of this.
CREATE FUNCTION postern.mark_hour() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO postern.changed_hours
  VALUES (date_trunc('hour', postern.uuid7_time(CASE TG_OP WHEN 'INSERT' THEN NEW.id ELSE OLD.id END), 'UTC'));
  RETURN NULL;
END
$$;

-- Last, since these wait for whoever writes. By the clock, not by when the transaction began.
CREATE TRIGGER late_insert AFTER INSERT ON postern.events FOR EACH ROW
WHEN (NEW.received_at < clock_timestamp() - interval '5 minutes') EXECUTE FUNCTION postern.mark_hour();

CREATE TRIGGER late_update AFTER UPDATE OF source, type, status, attempts ON postern.events FOR EACH ROW
WHEN (OLD.received_at < clock_timestamp() - interval '5 minutes') EXECUTE FUNCTION postern.mark_hour();

CREATE TRIGGER late_delete AFTER DELETE ON postern.events FOR EACH ROW
WHEN (OLD.received_at < clock_timestamp() - interval '5 minutes') EXECUTE FUNCTION postern.mark_hour();

-- What came in the last minutes may still be written without a mark, and so before this hour nothing may.
INSERT INTO postern.counting (counted_from, counted_to, looked_at, looked_in)
SELECT hour, hour, now(), pg_current_xact_id()
FROM (SELECT date_trunc('hour', now() - interval '10 minutes', 'UTC') AS hour) AS begin;
