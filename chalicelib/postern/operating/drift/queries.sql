-- The shapes of events, and what departed from them.

-- name: note_kinds
-- From type to type by the index, and of the last two days' partitions only: as fast for millions of events as for ten.
WITH RECURSIVE kinds AS (
  (
    SELECT source, type FROM postern.events
    WHERE id >= postern.uuid7_floor(date_trunc('day', %(now)s AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '1 day')
    ORDER BY source, type
    LIMIT 1
  )
  UNION ALL
  SELECT next.source, next.type
  FROM kinds
  CROSS JOIN LATERAL (
    SELECT source, type FROM postern.events
    WHERE (source, type) > (kinds.source, kinds.type)
      AND id >= postern.uuid7_floor(date_trunc('day', %(now)s AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '1 day')
    ORDER BY source, type
    LIMIT 1
  ) AS next
), recent AS (
  SELECT source, type FROM kinds LIMIT %(most)s
)
INSERT INTO postern.shapes (source, type)
SELECT source, type FROM recent
ON CONFLICT (source, type) DO NOTHING

-- name: kinds_to_look_at
SELECT source, type FROM postern.shapes ORDER BY looked_at, source, type LIMIT %(most)s

-- name: hold_shape
SELECT shape, events, last_id FROM postern.shapes
WHERE source = %(source)s AND type = %(type)s
FOR UPDATE SKIP LOCKED

-- name: unlearned_events
-- The newest, where there are more. What a body's length is, PostgreSQL knows without reading it.
SELECT id, CASE WHEN payload IS NULL THEN 0 ELSE octet_length(body) END AS bytes FROM postern.events
WHERE source = %(source)s AND type = %(type)s AND id < %(before)s
  AND (%(after)s::uuid IS NULL OR id > %(after)s)
ORDER BY id DESC
LIMIT %(most)s

-- name: payloads_of
SELECT id, payload::text AS payload FROM postern.events WHERE id = ANY (%(ids)s::uuid[]) ORDER BY id

-- name: keep_shape
UPDATE postern.shapes
SET shape = %(shape)s::jsonb, events = events + %(events)s, last_id = coalesce(%(last_id)s, last_id), looked_at = now()
WHERE source = %(source)s AND type = %(type)s

-- name: put_off_shape
UPDATE postern.shapes SET looked_at = now() WHERE source = %(source)s AND type = %(type)s

-- name: insert_drift
INSERT INTO postern.drift (source, type, kind, path, was, became, event_id)
VALUES (%(source)s, %(type)s, %(kind)s, %(path)s, %(was)s::text[], %(became)s::text[], %(event)s::uuid)
ON CONFLICT ON CONSTRAINT drift_is_reported_once DO NOTHING
RETURNING id

-- name: list_drift
SELECT id, source, type, kind, path, was, became, event_id, found_at, accepted_at
FROM postern.drift
WHERE (%(source)s::text IS NULL OR source = %(source)s)
  AND (%(type)s::text IS NULL OR type = %(type)s)
  AND (%(open)s::boolean IS NULL OR (accepted_at IS NULL) = %(open)s)
  AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC
LIMIT %(limit)s

-- name: accept_drift
UPDATE postern.drift SET accepted_at = now()
WHERE accepted_at IS NULL
  AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s))
  AND (%(source)s::text IS NULL OR source = %(source)s)
  AND (%(type)s::text IS NULL OR type = %(type)s)
RETURNING id

-- name: show_shape
SELECT shape, events, looked_at FROM postern.shapes WHERE source = %(source)s AND type = %(type)s

-- name: drop_old_shapes
-- A type that comes no more; should it, it is learned anew.
WITH dropped AS (
  DELETE FROM postern.shapes WHERE last_id < postern.uuid7_floor(now() - make_interval(days => %(days)s)) RETURNING 1
)
SELECT count(*) AS dropped FROM dropped

-- name: drop_old_drift
DELETE FROM postern.drift WHERE found_at < now() - make_interval(days => %(days)s)
