-- Every statement that the functions run, as named blocks; adapters/postgres.py loads them.

-- name: settle_session
-- Session settings rather than connection options, which RDS Proxy refuses. The last one frees the locks of a
-- function that was frozen in mid-transaction.
RESET ROLE;
RESET ALL;
SELECT set_config('datestyle', 'ISO', false),
       set_config('statement_timeout', '20s', false),
       set_config('lock_timeout', '5s', false),
       set_config('idle_in_transaction_session_timeout', '60s', false)

-- name: claim_keys
-- The insert itself decides who is first. Sorted, so that concurrent batches wait for each other in one order.
INSERT INTO postern.dedup_keys (source, key, event_id)
SELECT source, key, event_id
FROM unnest(%(sources)s::text[], %(keys)s::text[], %(ids)s::uuid[]) AS claim (source, key, event_id)
ORDER BY source, key, event_id
ON CONFLICT (source, key) DO NOTHING
RETURNING event_id

-- name: key_owners
SELECT claim.id, held.event_id
FROM unnest(%(sources)s::text[], %(keys)s::text[], %(ids)s::uuid[]) AS claim (source, key, id)
JOIN postern.dedup_keys AS held ON held.source = claim.source AND held.key = claim.key

-- name: lock_events
-- Two copies of one message may be worked on at once; the second waits here and then sees what the first did.
SELECT id, status, attempts
FROM postern.events
WHERE id = ANY (%(ids)s::uuid[])
ORDER BY id
FOR UPDATE

-- name: insert_events
INSERT INTO postern.events
  (id, source, type, dedup_key, status, attempts, error, received_at, processed_at, headers, payload, body, request_id,
   delivery_id, secret)
VALUES %s

-- name: insert_rejected
INSERT INTO postern.rejected (id, source, received_at, reason, method, url, query, headers, body, request_id)
VALUES %s
ON CONFLICT (id) DO NOTHING

-- name: insert_deliveries
INSERT INTO postern.deliveries (id, source, received_at, headers, body)
VALUES %s
ON CONFLICT (id) DO NOTHING

-- name: update_events
UPDATE postern.events AS event
SET status = result.status,
    attempts = result.attempts,
    error = result.error,
    processed_at = result.processed_at
FROM (VALUES %s) AS result (id, status, attempts, error, processed_at)
WHERE event.id = result.id

-- name: insert_duplicates
-- SQS may bring the same repetition twice.
INSERT INTO postern.duplicates (id, event_id, source, received_at)
VALUES %s
ON CONFLICT (id) DO NOTHING

-- name: list_events
SELECT id, source, type, dedup_key, status, attempts, split_part(error, E'\n', 1) AS error,
       received_at, processed_at
FROM postern.events
WHERE (%(source)s::text IS NULL OR source = %(source)s)
  AND (%(type)s::text IS NULL OR type = %(type)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(before)s::uuid IS NULL OR id < %(before)s)
ORDER BY id DESC
LIMIT %(limit)s

-- name: show_event
SELECT id, source, type, dedup_key, status, attempts, error, received_at, processed_at, request_id, delivery_id,
       headers, body
FROM postern.events
WHERE id = %(id)s

-- name: show_delivery
SELECT id, source, received_at, headers, body FROM postern.deliveries WHERE id = %(id)s

-- name: event_of_duplicate
SELECT event_id FROM postern.duplicates WHERE id = %(id)s

-- name: duplicates_of_event
SELECT id, received_at FROM postern.duplicates WHERE event_id = %(id)s ORDER BY id LIMIT 100

-- name: list_rejected
SELECT id, source, received_at, reason, method, octet_length(body) AS bytes, event_id
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
SELECT id, source, received_at, reason, method, url, query, headers, body, request_id, event_id
FROM postern.rejected
WHERE id = %(id)s

-- name: resolve_rejected
UPDATE postern.rejected SET event_id = %(event_id)s WHERE id = %(id)s RETURNING id

-- name: drop_rejected
-- A flood of forgeries drops what came before it, rather than fill the disk.
WITH ranked AS (
  SELECT id, row_number() OVER (PARTITION BY source ORDER BY id DESC) AS newest FROM postern.rejected
), dropped AS (
  DELETE FROM postern.rejected AS kept USING ranked
  WHERE kept.id = ranked.id
    AND (newest > %(most)s OR kept.id < postern.uuid7_floor(now() - make_interval(days => %(days)s)))
  RETURNING kept.id
)
SELECT count(*) AS dropped FROM dropped

-- name: secrets_used
SELECT source, secret, count(*) AS events, min(received_at) AS first, max(received_at) AS last
FROM postern.events
WHERE id >= postern.uuid7_floor(now() - make_interval(days => %(days)s))
GROUP BY source, secret
ORDER BY source, last DESC

-- name: ensure_partitions
SELECT postern.ensure_partitions(%(days_ahead)s)
