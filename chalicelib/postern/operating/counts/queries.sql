-- Counts of events by the hour, kept beside them (migration 0015).

-- name: counting
-- `settled_to`: before it no row comes any more without a mark at its hour. NULL while a transaction of before is open.
-- `restored`: the last look was in another server, whose transactions have other ids.
SELECT counted_from, counted_to, looked_in >= pg_snapshot_xmax(pg_current_snapshot()) AS restored,
       CASE WHEN pg_snapshot_xmin(pg_current_snapshot()) > looked_in THEN looked_at - interval '5 minutes' END AS settled_to
FROM postern.counting
FOR UPDATE

-- name: note_look
-- Whoever wrote before now() has an older id than this transaction, or asks the clock later.
UPDATE postern.counting SET looked_in = pg_current_xact_id(), looked_at = now()

-- name: add_counts
-- Of one hour, or a part of it: the one that goes on is counted in parts.
INSERT INTO postern.hour_counts AS known (hour, source, type, status, events, attempts)
SELECT date_trunc('hour', %(since)s, 'UTC'), source, type, status, count(*), sum(attempts)
FROM postern.events
WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s)
GROUP BY source, type, status
ON CONFLICT (hour, source, type, status) DO UPDATE
SET events = known.events + excluded.events, attempts = known.attempts + excluded.attempts

-- name: note_counted
UPDATE postern.counting
SET counted_from = least(counted_from, %(since)s), counted_to = greatest(counted_to, %(until)s)

-- name: last_event_before
SELECT postern.uuid7_time(id) AS at FROM postern.events
WHERE id < postern.uuid7_floor(%(moment)s) ORDER BY id DESC LIMIT 1

-- name: next_event_after
SELECT postern.uuid7_time(id) AS at FROM postern.events
WHERE id >= postern.uuid7_floor(%(moment)s) ORDER BY id LIMIT 1

-- name: take_changed_hour
-- The newest of those that are counted and are not done yet, and with it the marks of others, whose rows are counted
-- when their turn comes. A mark that comes after this stays, for the next time.
WITH counted AS (
  SELECT max(hour) AS hour FROM postern.changed_hours
  WHERE hour >= %(since)s AND hour < %(until)s AND hour <> ALL (%(done)s::timestamptz[])
), taken AS (
  DELETE FROM postern.changed_hours AS changed USING counted
  WHERE changed.hour = counted.hour OR changed.hour < %(since)s OR changed.hour >= %(until)s
)
SELECT hour FROM counted WHERE hour IS NOT NULL

-- name: drop_hour_counts
DELETE FROM postern.hour_counts WHERE hour = %(hour)s

-- name: stats
-- Duplicates and refused deliveries are few beside the events, and are counted as they are.
SELECT date_trunc(%(step)s, hour, 'UTC') AS at,
       CASE WHEN %(by_source)s THEN source END AS source,
       coalesce(sum(events) FILTER (WHERE what = 'processed'), 0) AS processed,
       coalesce(sum(events) FILTER (WHERE what = 'stale'), 0) AS stale,
       coalesce(sum(events) FILTER (WHERE what = 'failed'), 0) AS failed,
       coalesce(sum(events) FILTER (WHERE what = 'dead'), 0) AS dead,
       coalesce(sum(events) FILTER (WHERE what = 'duplicate'), 0) AS duplicates,
       coalesce(sum(events) FILTER (WHERE what = 'rejected'), 0) AS rejected
FROM (
  SELECT hour, source, type, status AS what, events
  FROM postern.counts
  WHERE %(step)s <> 'minute' AND hour >= %(since)s AND hour < %(until)s
  UNION ALL
  SELECT date_trunc('minute', received_at), source, type, status, count(*)
  FROM postern.events
  WHERE %(step)s = 'minute' AND id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s)
  GROUP BY 1, 2, 3, 4
  UNION ALL
  SELECT date_trunc(%(fine)s, received_at, 'UTC'), source, type, 'duplicate', count(*)
  FROM postern.duplicates
  WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s)
  GROUP BY 1, 2, 3
  UNION ALL
  SELECT date_trunc(%(fine)s, received_at, 'UTC'), source, NULL, 'rejected', count(*)
  FROM postern.rejected
  WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s)
  GROUP BY 1, 2
) AS counted
WHERE (%(source)s::text IS NULL OR source = %(source)s)
  AND /* type_filter */
GROUP BY 1, 2
ORDER BY 1, 2

-- name: latency
-- Of the newest thousand, so that it costs the same however many there are.
SELECT count(*) AS events,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds) AS p99,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY ack) AS ack_p50,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY ack) AS ack_p95,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY ack) AS ack_p99
FROM (
  SELECT extract(epoch FROM total)::float8 AS seconds, extract(epoch FROM ack)::float8 AS ack
  FROM postern.latency
  WHERE id >= postern.uuid7_floor(%(since)s) AND (%(source)s::text IS NULL OR source = %(source)s)
  ORDER BY id DESC
  LIMIT 1000
) AS newest
