-- What was taken for a repetition, and what is known by a provider's id.

-- name: list_duplicates
SELECT id, event_id, source, type, dedup_key, why, received_at, accepted_at
FROM postern.duplicates
WHERE (%(source)s::text IS NULL OR source = %(source)s)
  AND (%(why)s::text IS NULL OR why = %(why)s)
  AND (%(event_id)s::uuid IS NULL OR event_id = %(event_id)s)
  AND (%(before)s::uuid IS NULL OR id < %(before)s)
ORDER BY id DESC
LIMIT %(limit)s

-- name: count_duplicates
SELECT source, why, count(*) AS count
FROM postern.duplicates
WHERE (%(source)s::text IS NULL OR source = %(source)s) AND id >= postern.uuid7_floor(now() - interval '1 day')
GROUP BY source, why
ORDER BY count DESC, source, why

-- name: show_duplicate
SELECT again.id, again.event_id, again.source, again.type, again.dedup_key, again.why, again.received_at,
       again.accepted_at, again.headers, again.format, again.form_field, again.request_id,
       coalesce(again.body, event.body) AS body, again.body IS NULL AS same_bytes
FROM postern.duplicates AS again
LEFT JOIN postern.events AS event ON event.id = again.event_id
WHERE again.id = %(id)s

-- name: find_duplicates
SELECT id, event_id, source, type, dedup_key, why, received_at, accepted_at
FROM postern.duplicates
WHERE dedup_key COLLATE "C" = %(key)s
   OR dedup_key COLLATE "C" >= %(key)s || ':' AND dedup_key COLLATE "C" < %(key)s || ';'
ORDER BY id DESC
LIMIT %(limit)s

-- name: find_keys
-- Of events whose rows are gone with age. From source to source along the index, of which there are few.
WITH RECURSIVE sources AS (
  SELECT min(source) AS source FROM postern.dedup_keys
  UNION ALL
  SELECT (SELECT min(held.source) FROM postern.dedup_keys AS held WHERE held.source > sources.source)
  FROM sources
  WHERE sources.source IS NOT NULL
)
SELECT held.source, held.event_id, held.claimed_at
FROM sources
JOIN postern.dedup_keys AS held ON held.source = sources.source AND held.key = %(key)s
ORDER BY held.claimed_at DESC
LIMIT %(limit)s

-- name: find_rejected
-- Nobody knows where the id stands in what was refused: it is looked for in headers and bytes, of the newest.
SELECT id, source, received_at, reason, event_id
FROM (SELECT * FROM postern.rejected ORDER BY id DESC LIMIT 2000) AS newest
WHERE position(%(key)s IN headers::text) > 0
   OR octet_length(body) <= 65536 AND position(convert_to(%(key)s, 'UTF8') IN body) > 0
ORDER BY id DESC
LIMIT %(limit)s
