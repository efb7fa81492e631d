-- Events in the order in which they were written.

-- name: stream_now
-- `held`: there are some that a transaction which is still open may yet come before. `foreign`: there are some that no
-- transaction of this server has written.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS written_in,
       pg_snapshot_xmax(pg_current_snapshot())::text AS ahead,
       EXISTS (
         SELECT FROM postern.events
         WHERE written_in >= pg_snapshot_xmin(pg_current_snapshot())
       ) AS held,
       EXISTS (
         SELECT FROM postern.events
         WHERE written_in >= pg_snapshot_xmax(pg_current_snapshot())
       ) AS foreign

-- name: stream_ahead
SELECT %(written_in)s::xid8 > pg_snapshot_xmax(pg_current_snapshot()) AS ahead

-- name: stream_place
SELECT written_in::text, id FROM postern.events WHERE id = %(id)s

-- name: stream_kept
-- Since when days are kept whole.
SELECT min(since) AS since FROM postern.partitions WHERE parent = 'events'

-- name: scan_stream
SELECT id, written_in::text, source, type, octet_length(body) AS bytes
FROM postern.events
WHERE (written_in, id) > (%(written_in)s::xid8, %(id)s) AND written_in < pg_snapshot_xmin(pg_current_snapshot())
  -- What was received before is not asked for; and days before it need not be looked into.
  AND (%(floor)s::uuid IS NULL OR id >= %(floor)s)
ORDER BY events.written_in, events.id
LIMIT %(limit)s

-- name: streamed_events
SELECT id, source, type, dedup_key, status, attempts, split_part(error, E'\n', 1) AS error, received_at, processed_at,
       CASE WHEN %(bodies)s THEN headers END AS headers,
       CASE WHEN %(bodies)s AND octet_length(body) <= %(most)s THEN body END AS body
FROM postern.events
WHERE id = ANY (%(ids)s::uuid[])
