-- What processing a batch runs.

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
   delivery_id, secret, format, form_field)
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

-- name: limit_statements
SELECT set_config('statement_timeout', %(milliseconds)s, true)

-- name: lock_entities
-- Each transaction takes them in one order, so that none waits for another in a circle. Two entities that share a
-- hash wait for each other needlessly, and no worse.
SELECT pg_advisory_xact_lock(key)
FROM (
  SELECT DISTINCT hashtextextended('postern.entities' || E'\n' || source || E'\n' || entity, 0) AS key
  FROM unnest(%(sources)s::text[], %(keys)s::text[]) AS wanted (source, entity)
  ORDER BY key
) AS sorted

-- name: entity_versions
SELECT source, entity, version
FROM postern.entities
JOIN unnest(%(sources)s::text[], %(keys)s::text[]) AS wanted (source, entity) USING (source, entity)

-- name: advance_entities
INSERT INTO postern.entities (source, entity, version, event_id)
VALUES %s
ON CONFLICT (source, entity) DO UPDATE SET version = excluded.version, event_id = excluded.event_id, at = now()

-- name: insert_attempts
-- An event whose row was dropped with its partition begins again at 1.
INSERT INTO postern.attempts
  (event_id, number, started_at, duration_ms, trigger, outcome, handler, error_class, message, traceback, issue_id,
   replay_id)
VALUES %s
ON CONFLICT (event_id, number) DO NOTHING

-- name: count_issues
INSERT INTO postern.issues AS issue
  (id, handler, error_class, message, count, first_seen, last_seen, first_event, last_event)
VALUES %s
ON CONFLICT (id) DO UPDATE
SET message = excluded.message,
    count = issue.count + excluded.count,
    last_seen = greatest(issue.last_seen, excluded.last_seen),
    last_event = excluded.last_event,
    state_changed_at = CASE WHEN issue.state = 'resolved' THEN excluded.last_seen ELSE issue.state_changed_at END,
    state = CASE WHEN issue.state = 'resolved' THEN 'open' ELSE issue.state END

-- name: insert_duplicates
-- SQS may bring the same repetition twice.
INSERT INTO postern.duplicates (id, event_id, source, received_at)
VALUES %s
ON CONFLICT (id) DO NOTHING
