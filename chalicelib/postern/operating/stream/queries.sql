-- Events in the order in which they were written.

-- name: stream_now
-- `server`: which it is; where the role may not ask, all are one.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS written_in,
       pg_snapshot_xmax(pg_current_snapshot())::text AS ahead,
       coalesce(
         CASE WHEN has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
              THEN (SELECT system_identifier FROM pg_catalog.pg_control_system()) END, 0)::text AS server

-- name: stream_place
SELECT written_in::text FROM postern.events WHERE id = %(id)s

-- name: stream_kept
-- Since when days are kept whole.
SELECT min(since) AS since FROM postern.partitions WHERE parent = 'events'

-- name: scan_stream
-- `size`: what it takes of an answer, beside its body; headers are JSON in JSON there.
SELECT id, written_in::text, source, type, octet_length(body) AS bytes,
       2000 + CASE WHEN %(bodies)s THEN 2 * octet_length(headers::text) ELSE 0 END AS size
FROM postern.events
WHERE (written_in, id) > (%(written_in)s::xid8, %(id)s) AND written_in < pg_snapshot_xmin(pg_current_snapshot())
  -- Of what was written before somebody began, what was received before is not asked for; nor its days looked into.
  AND (%(floor)s::uuid IS NULL OR id >= %(floor)s AND written_in < %(begun)s::xid8)
ORDER BY events.written_in, events.id
LIMIT %(limit)s

-- name: stream_newest
-- `held`: a transaction which is still open may yet come before it. `foreign`: no transaction of this server wrote it.
SELECT written_in >= pg_snapshot_xmin(pg_current_snapshot()) AS held,
       written_in >= pg_snapshot_xmax(pg_current_snapshot()) AS foreign
FROM (SELECT written_in FROM postern.events ORDER BY written_in DESC, id DESC LIMIT 1) AS newest

-- name: streamed_events
SELECT id, source, type, dedup_key, status, attempts, split_part(error, E'\n', 1) AS error, received_at, processed_at,
       CASE WHEN %(bodies)s THEN headers END AS headers,
       CASE WHEN %(bodies)s AND octet_length(body) <= %(most)s THEN body END AS body
FROM postern.events
WHERE id = ANY (%(ids)s::uuid[])
