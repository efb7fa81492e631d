-- What people ask of the stored events.

-- part: type_filter
-- A type, or with a * at its end all that begin so.
(%(type)s::text IS NULL
       OR CASE WHEN right(%(type)s, 1) = '*' THEN starts_with(type, left(%(type)s, -1)) ELSE type = %(type)s END)

-- part: event_filter
-- Which events are meant (operating/filters.py). A filter that is NULL lets everything through.
(%(ids)s::uuid[] IS NULL OR id = ANY (%(ids)s::uuid[]))
  AND (%(source)s::text IS NULL OR source = %(source)s)
  AND /* type_filter */
  AND (%(status)s::text[] IS NULL OR status = ANY (%(status)s::text[]))
  AND (%(since)s::timestamptz IS NULL OR id >= postern.uuid7_floor(%(since)s::timestamptz))
  AND (%(until)s::timestamptz IS NULL OR id < postern.uuid7_floor(%(until)s::timestamptz))
  AND (%(contains)s::jsonb IS NULL OR payload @> %(contains)s::jsonb)
  AND (%(key)s::text IS NULL OR dedup_key COLLATE "C" = %(key)s
       OR dedup_key COLLATE "C" >= %(key)s || ':' AND dedup_key COLLATE "C" < %(key)s || ';')
  AND (%(issue)s::text IS NULL
       OR id = ANY (ARRAY(SELECT event_id FROM postern.attempts WHERE issue_id = %(issue)s)))

-- part: listed_columns
id, source, type, dedup_key, status, attempts, split_part(error, E'\n', 1) AS error, received_at, processed_at

-- part: listing_filter
(%(before)s::uuid IS NULL OR id < %(before)s)
  AND (%(attempts)s::integer IS NULL OR attempts >= %(attempts)s)
  -- The first condition is that of the index which finds those with an error.
  AND (%(error)s::text IS NULL OR status <> 'processed' AND position(lower(%(error)s) IN lower(error)) > 0)
  AND (%(after)s::uuid IS NULL OR id > %(after)s)

-- name: list_events
SELECT /* listed_columns */
FROM postern.events
WHERE /* event_filter */ AND /* listing_filter */
ORDER BY id DESC
LIMIT %(limit)s

-- name: search_events
-- What fits is found first and put in order then: in the order of ids, every row would be looked at.
WITH found AS MATERIALIZED (
  SELECT /* listed_columns */
  FROM postern.events
  WHERE /* event_filter */ AND /* listing_filter */
)
SELECT * FROM found
ORDER BY id DESC
LIMIT %(limit)s

-- name: oldest_event
SELECT id FROM postern.events ORDER BY id LIMIT 1

-- name: show_event
SELECT id, source, type, dedup_key, status, attempts, error, received_at, queued_at, processed_at, request_id,
       delivery_id, secret, same_body_as, origin, headers, body
FROM postern.events
WHERE id = %(id)s

-- name: show_delivery
SELECT id, source, received_at, headers, body FROM postern.deliveries WHERE id = %(id)s

-- name: duplicates_of_event
SELECT id, received_at, type, why, accepted_at
FROM postern.duplicates
WHERE event_id = %(id)s
ORDER BY id
LIMIT 100

-- name: secrets_used
SELECT source, secret, count(*) AS events, min(received_at) AS first, max(received_at) AS last
FROM postern.events
WHERE id >= postern.uuid7_floor(now() - make_interval(days => %(days)s))
GROUP BY source, secret
ORDER BY source, last DESC

-- name: attempts_of_event
SELECT number, trigger, outcome, started_at, duration_ms, handler, error_class, message, traceback, issue_id, replay_id
FROM postern.tries
WHERE event_id = %(id)s
ORDER BY number

-- name: statuses_of_events
SELECT id, status FROM postern.events WHERE id = ANY (%(ids)s::uuid[])

-- name: part_of_event
SELECT substring(body FROM %(offset)s + 1 FOR %(length)s) AS part FROM postern.events WHERE id = %(id)s

-- name: part_of_delivery
SELECT substring(body FROM %(offset)s + 1 FOR %(length)s) AS part FROM postern.deliveries WHERE id = %(id)s
