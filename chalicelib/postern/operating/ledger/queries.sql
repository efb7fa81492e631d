-- The ledger. Ids carry the time of receipt, so that a range of them is a range of minutes and reads few partitions.

-- name: bookkeeping
SELECT ledger_begins, ledger_to, checked_at, missing, waiting FROM postern.bookkeeping

-- name: sources_between
SELECT source FROM postern.events
WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s)
UNION
SELECT source FROM postern.duplicates
WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s)

-- name: enter_ledger
-- A count only grows: neither a partition that was dropped nor a metric that came in part takes anything back.
INSERT INTO postern.ledger AS known (source, minute, accepted, stored, duplicates)
SELECT source, minute, sum(accepted), sum(stored), sum(duplicates)
FROM (
  SELECT source, minute, number AS accepted, 0 AS stored, 0 AS duplicates
  FROM unnest(%(sources)s::text[], %(minutes)s::timestamptz[], %(numbers)s::bigint[]) AS said (source, minute, number)
  UNION ALL
  SELECT source, date_trunc('minute', received_at), 0, count(*), 0
  FROM postern.events
  WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s)
    -- What was let through afterwards was accepted as a duplicate.
    AND id NOT IN (SELECT id FROM postern.duplicates WHERE accepted_at IS NOT NULL)
    -- And what was fetched from a provider, no sender was told to be accepted: postern.gaps has that.
    AND origin IS NULL
  GROUP BY 1, 2
  UNION ALL
  SELECT source, date_trunc('minute', received_at), 0, 0, count(*)
  FROM postern.duplicates
  WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s) AND origin IS NULL
  GROUP BY 1, 2
) AS counted
GROUP BY source, minute
ON CONFLICT (source, minute) DO UPDATE
SET accepted = greatest(known.accepted, excluded.accepted),
    stored = greatest(known.stored, excluded.stored),
    duplicates = greatest(known.duplicates, excluded.duplicates)
WHERE known.accepted < excluded.accepted OR known.stored < excluded.stored OR known.duplicates < excluded.duplicates

-- name: ledger_has_come_to
UPDATE postern.bookkeeping SET ledger_to = greatest(ledger_to, %(until)s)

-- name: recount_missing
-- What waited in the queue is written at last, days later perhaps, and belongs to the minute in which it came.
WITH short AS (
  SELECT DISTINCT minute FROM postern.ledger
  WHERE missing > 0 AND minute >= %(since)s AND minute < %(until)s
), counted AS (
  SELECT minute, source, sum(stored) AS stored, sum(duplicates) AS duplicates
  FROM (
    SELECT short.minute, of_minute.source, of_minute.number AS stored, 0 AS duplicates
    FROM short CROSS JOIN LATERAL (
      SELECT source, count(*) AS number FROM postern.events
      WHERE id >= postern.uuid7_floor(short.minute) AND id < postern.uuid7_floor(short.minute + interval '1 minute')
        AND id NOT IN (SELECT id FROM postern.duplicates WHERE accepted_at IS NOT NULL) AND origin IS NULL
      GROUP BY source
    ) AS of_minute
    UNION ALL
    SELECT short.minute, of_minute.source, 0, of_minute.number
    FROM short CROSS JOIN LATERAL (
      SELECT source, count(*) AS number FROM postern.duplicates
      WHERE id >= postern.uuid7_floor(short.minute) AND id < postern.uuid7_floor(short.minute + interval '1 minute')
        AND origin IS NULL
      GROUP BY source
    ) AS of_minute
  ) AS each
  GROUP BY minute, source
)
UPDATE postern.ledger AS known
SET stored = greatest(known.stored, counted.stored), duplicates = greatest(known.duplicates, counted.duplicates)
FROM counted
WHERE known.source = counted.source AND known.minute = counted.minute
  AND (known.stored < counted.stored OR known.duplicates < counted.duplicates)

-- name: missing_by_source
SELECT source, sum(missing) AS missing, min(minute) AS since
FROM postern.ledger
WHERE missing > 0 AND minute >= %(since)s AND minute < %(until)s
GROUP BY source
ORDER BY source

-- name: count_unfinished
-- Each of them has a row and, beside it, a message in the queue or among the dead letters.
SELECT count(*) AS unfinished
FROM postern.events
WHERE status <> 'processed' AND status IN ('failed', 'dead') AND id >= postern.uuid7_floor(%(since)s)

-- name: note_check
UPDATE postern.bookkeeping SET checked_at = %(at)s, missing = %(missing)s, waiting = %(waiting)s

-- name: drop_ledger
WITH dropped AS (DELETE FROM postern.ledger WHERE minute < %(before)s RETURNING 1) SELECT count(*) AS dropped FROM dropped

-- name: ledger_totals
SELECT book.source, book.accepted, book.stored, book.duplicates, book.written_off, book.missing, book.surplus,
       coalesce(unfinished.failed, 0) AS failed, coalesce(unfinished.dead, 0) AS dead
FROM (
  SELECT source, sum(accepted) AS accepted, sum(stored) AS stored, sum(duplicates) AS duplicates,
         sum(written_off) AS written_off, sum(missing) AS missing, sum(surplus) AS surplus
  FROM postern.ledger
  WHERE minute >= %(since)s AND (%(source)s::text IS NULL OR source = %(source)s)
  GROUP BY source
) AS book
LEFT JOIN (
  SELECT source, count(*) FILTER (WHERE status = 'failed') AS failed, count(*) FILTER (WHERE status = 'dead') AS dead
  FROM postern.events
  WHERE status <> 'processed' AND id >= postern.uuid7_floor(%(since)s)
  GROUP BY source
) AS unfinished USING (source)
ORDER BY book.source

-- name: ledger_minutes
SELECT source, minute, accepted, stored, duplicates, written_off, missing, surplus, note
FROM postern.ledger
WHERE minute >= %(since)s AND (%(source)s::text IS NULL OR source = %(source)s) AND (missing > 0 OR surplus > 0)
ORDER BY minute DESC, source
LIMIT %(limit)s

-- name: write_off
WITH short AS (
  SELECT source, minute, missing FROM postern.ledger
  WHERE missing > 0 AND minute >= %(since)s AND minute < %(until)s
    AND (%(source)s::text IS NULL OR source = %(source)s)
  FOR UPDATE
), closed AS (
  UPDATE postern.ledger AS known SET written_off = known.written_off + short.missing, note = %(note)s
  FROM short WHERE known.source = short.source AND known.minute = short.minute
  RETURNING short.missing
)
SELECT coalesce(sum(missing), 0) AS written_off FROM closed
