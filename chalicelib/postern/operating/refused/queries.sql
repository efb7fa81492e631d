-- Refused deliveries that were kept.

-- name: list_rejected
SELECT id, source, received_at, reason, verified, method, octet_length(body) AS bytes, event_id, note
FROM postern.rejected
WHERE (%(source)s::text IS NULL OR source = %(source)s)
  AND (%(pending)s::boolean IS FALSE OR event_id IS NULL)
  AND (%(before)s::uuid IS NULL OR id < %(before)s)
ORDER BY id DESC
LIMIT %(limit)s

-- name: count_rejected
SELECT source, reason, count(*) AS count, max(received_at) AS last
FROM postern.rejected
WHERE (%(source)s::text IS NULL OR source = %(source)s) AND event_id IS NULL
GROUP BY source, reason
ORDER BY count DESC, source, reason

-- name: show_rejected
SELECT id, source, received_at, reason, method, url, query, headers, body, request_id, event_id, note, verified, signed_id
FROM postern.rejected
WHERE id = %(id)s

-- name: resolve_rejected
-- The first word on it stands.
UPDATE postern.rejected SET event_id = %(event_id)s, note = %(note)s WHERE id = %(id)s AND event_id IS NULL RETURNING id

-- name: drop_rejected
-- A flood drops what came before it, rather than fill the disk: one of forgeries only forgeries.
WITH ranked AS (
  SELECT id,
         row_number() OVER same AS newest,
         sum(octet_length(body)) OVER same AS bytes
  FROM postern.rejected
  WINDOW same AS (PARTITION BY source, verified ORDER BY id DESC)
), dropped AS (
  DELETE FROM postern.rejected AS kept USING ranked
  WHERE kept.id = ranked.id
    AND (newest > %(most)s OR bytes > %(bytes)s
         OR kept.id < postern.uuid7_floor(now() - make_interval(days => %(days)s)))
  RETURNING kept.id
)
SELECT count(*) AS dropped FROM dropped
