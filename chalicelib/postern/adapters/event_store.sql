-- What processing a batch runs.

-- name: settle_session
/* settings */

-- name: clear_session
-- As DISCARD ALL, which no transaction may have in it. What handlers have deferred to the commit is done before, while
-- their settings and temporary tables are there.
SET CONSTRAINTS ALL IMMEDIATE;
CLOSE ALL;
SET SESSION AUTHORIZATION DEFAULT;
DEALLOCATE ALL;
UNLISTEN *;
SELECT pg_advisory_unlock_all();
DISCARD TEMP;
DISCARD SEQUENCES;
/* settings */

-- part: settings
-- Of the transaction rather than connection options, which RDS Proxy and PgBouncer refuse. The idle timeout frees the
-- locks of a function that was frozen in mid-transaction. A handler's unqualified `issues` is the team's own before it
-- is ours, also where the role is called like our schema. A commit is durable, whatever role or server have been set
-- to. Compiling a query over all days takes seconds, and running it milliseconds (measured on 15: 6 s, and 14 ms without).
-- Answers with the settings as they are now.
RESET ROLE;
RESET ALL;
SELECT set_config('client_encoding', 'UTF8', true),
       set_config('datestyle', 'ISO', true),
       set_config('intervalstyle', 'postgres', true),
       set_config('bytea_output', 'hex', true),
       set_config('extra_float_digits', '1', true),
       set_config('jit', 'off', true),
       set_config('statement_timeout', %(statement_timeout)s, true),
       set_config('lock_timeout', '5s', true),
       set_config('idle_in_transaction_session_timeout', '60s', true),
       set_config('synchronous_commit', CASE current_setting('synchronous_commit')
         WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true),
       set_config('search_path', (
         SELECT coalesce(string_agg(quote_ident(schema), ', ' ORDER BY schema = 'postern', place), '""')
         FROM unnest(current_schemas(false)) WITH ORDINALITY AS found (schema, place)
       ), true);
SELECT current_user || ' ' || current_setting('search_path') || ' ' || current_setting('lock_timeout'),
       current_setting('synchronous_commit')

-- name: bound_statements
-- For the rest of the transaction.
SELECT set_config('statement_timeout', (%(seconds)s * 1000)::integer::text, true)

-- name: left_behind
-- What handlers have left in their session: asked once for a whole batch, before it commits. A lock of a session and
-- one of its transaction look the same. `locks` are those that we took.
SELECT current_user || ' ' || current_setting('search_path') || ' ' || current_setting('lock_timeout') AS settings,
       array_remove(ARRAY[
         CASE WHEN EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_my_temp_schema()) THEN 'a temporary table' END,
         CASE WHEN EXISTS (SELECT FROM pg_prepared_statements) THEN 'a prepared statement' END,
         CASE WHEN EXISTS (SELECT FROM pg_cursors) THEN 'an open cursor' END,
         CASE WHEN (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) > %(locks)s
              THEN 'an advisory lock' END
       ], NULL) AS left

-- name: claim_keys
-- The insert itself decides who is first. Sorted, so that concurrent batches wait for each other in one order.
INSERT INTO postern.dedup_keys (source, key, event_id, claimed_at)
SELECT source, key, event_id, received_at
FROM unnest(%(sources)s::text[], %(keys)s::text[], %(ids)s::uuid[], %(times)s::timestamptz[])
  AS claim (source, key, event_id, received_at)
ORDER BY source, key, event_id
ON CONFLICT (source, key) DO NOTHING
RETURNING source, key, event_id

-- name: claim_keys_for_a_while
-- A claim that is older than the window is taken over, which two at once can do only one after the other.
INSERT INTO postern.dedup_keys AS held (source, key, event_id, claimed_at, holds_until)
SELECT source, key, event_id, received_at, received_at + make_interval(secs => seconds)
FROM unnest(%(sources)s::text[], %(keys)s::text[], %(ids)s::uuid[], %(times)s::timestamptz[], %(windows)s::integer[])
  AS claim (source, key, event_id, received_at, seconds)
ORDER BY source, key, event_id
ON CONFLICT (source, key) DO UPDATE
SET event_id = excluded.event_id, claimed_at = excluded.claimed_at, holds_until = excluded.holds_until
WHERE excluded.claimed_at - held.claimed_at >= excluded.holds_until - excluded.claimed_at
RETURNING source, key, event_id

-- name: release_keys
DELETE FROM postern.dedup_keys AS held
USING unnest(%(sources)s::text[], %(keys)s::text[], %(ids)s::uuid[]) AS claim (source, key, id)
WHERE held.source = claim.source AND held.key = claim.key AND held.event_id = claim.id
  AND NOT EXISTS (SELECT FROM postern.events WHERE events.id = claim.id)

-- name: key_holders
SELECT held.source, held.key, held.event_id, held.claimed_at, sha256(event.body) AS body_hash
FROM unnest(%(sources)s::text[], %(keys)s::text[]) AS claim (source, key)
JOIN postern.dedup_keys AS held ON held.source = claim.source AND held.key = claim.key
LEFT JOIN postern.events AS event ON event.id = held.event_id

-- name: lock_events
-- Two copies of one message may be worked on at once; the second waits here and then sees what the first did.
SELECT id, status, attempts
FROM postern.events
WHERE id = ANY (%(ids)s::uuid[])
ORDER BY id
FOR UPDATE

-- name: live_tries
-- Failed tries that were not a replay's, after those that the event had when it was last moved to the dead letters.
SELECT wanted.id, count(attempt.number)::integer AS spent
FROM unnest(%(ids)s::uuid[], %(befores)s::integer[]) AS wanted (id, before)
LEFT JOIN postern.attempts AS attempt
  ON attempt.event_id = wanted.id AND attempt.number > wanted.before AND attempt.replay_id IS NULL
  AND attempt.outcome IN ('failed', 'dead')
GROUP BY wanted.id

-- name: open_try
-- Once it may have been left by an outage, or by a crash of PostgreSQL; the second time it is the event's own.
INSERT INTO postern.open_tries AS earlier (event_id, ends_at)
VALUES (%(id)s, now() + make_interval(secs => %(seconds)s))
ON CONFLICT (event_id) DO UPDATE
SET opened = earlier.opened + 1, opened_at = now(), ends_at = excluded.ends_at
WHERE earlier.ends_at <= now() AND earlier.opened = 1
RETURNING event_id

-- name: earlier_try
SELECT ends_at > now() AS busy FROM postern.open_tries WHERE event_id = %(id)s

-- name: close_tries
DELETE FROM postern.open_tries WHERE event_id = ANY (%(ids)s::uuid[])

-- name: end_tries
WITH closed AS (DELETE FROM postern.open_tries WHERE event_id = ANY (%(ids)s::uuid[]))
DELETE FROM postern.postponed WHERE try_id = ANY (%(ids)s::uuid[])

-- name: postponed
-- A message that is sent anew is received for the first time again.
SELECT try_id, receives
FROM postern.postponed
JOIN unnest(%(ids)s::uuid[], %(receives)s::integer[]) AS wanted (try_id, receive) USING (try_id)
WHERE last_receive < receive

-- name: postpone
INSERT INTO postern.postponed AS earlier
  (try_id, event_id, source, type, handler, reason, last_receive, waited, again_at)
VALUES (%(try_id)s, %(event_id)s, %(source)s, %(type)s, %(handler)s, %(reason)s, %(receive)s, %(seconds)s,
        now() + make_interval(secs => %(seconds)s))
ON CONFLICT (try_id) DO UPDATE
SET handler = excluded.handler, reason = excluded.reason, times = earlier.times + 1, last_at = now(),
    waited = earlier.waited + excluded.waited, again_at = excluded.again_at, last_receive = excluded.last_receive,
    receives = CASE WHEN earlier.last_receive < excluded.last_receive THEN earlier.receives + 1 ELSE 1 END
WHERE earlier.waited < %(bound)s
RETURNING try_id

-- name: copy_events
COPY postern.events
  (id, source, type, dedup_key, status, attempts, error, received_at, processed_at, duration_ms, headers, payload, body,
   request_id, delivery_id, secret, format, form_field, same_body_as, queued_at, origin)
FROM STDIN (ENCODING 'UTF8')

-- name: insert_rejected
INSERT INTO postern.rejected
  (id, source, received_at, reason, method, url, query, headers, body, request_id, verified, signed_id)
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
    processed_at = result.processed_at,
    duration_ms = coalesce(result.duration_ms, event.duration_ms)
FROM (VALUES %s) AS result (id, status, attempts, error, processed_at, duration_ms, before)
WHERE event.id = result.id AND event.attempts = result.before

-- name: record_first_tries
-- Of events that were processed at the first try and are tried again: from now on their rows tell of a later one.
INSERT INTO postern.attempts (event_id, number, started_at, duration_ms, trigger, outcome)
SELECT event_id, number, started_at, duration_ms, trigger, outcome
FROM postern.tries
WHERE event_id = ANY (%(ids)s::uuid[]) AND number = 1 AND outcome IN ('processed', 'stale')
ON CONFLICT (event_id, number) DO NOTHING

-- name: lock_entities
-- Each transaction takes them in one order, so that none waits for another in a circle. Two entities that share a
-- hash wait for each other needlessly, and no worse.
SELECT pg_advisory_xact_lock(key)
FROM (
  SELECT DISTINCT hashtextextended('postern.entities' || E'\n' || source || E'\n' || entity, 0) AS key
  FROM unnest(%(sources)s::text[], %(keys)s::text[]) AS wanted (source, entity)
  ORDER BY key
) AS sorted

-- name: lock_handlers
SELECT pg_advisory_xact_lock(key)
FROM (
  SELECT hashtextextended('postern.handlers' || E'\n' || name, 0) AS key
  FROM unnest(%(names)s::text[]) AS wanted (name)
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
INSERT INTO postern.duplicates
  (id, event_id, source, received_at, why, type, dedup_key, headers, body, format, form_field, request_id, origin)
VALUES %s
ON CONFLICT (id) DO NOTHING

-- name: duplicates_accepted
UPDATE postern.duplicates SET accepted_at = now() WHERE id = ANY (%(ids)s::uuid[]) AND accepted_at IS NULL

-- name: lock_replay_item
SELECT item.state, item.tries, replay.trigger, replay.state = 'running' AS running
FROM postern.replay_items AS item
JOIN postern.replays AS replay ON replay.id = item.replay_id
WHERE item.replay_id = %(replay_id)s AND item.event_id = %(event_id)s
FOR UPDATE OF item

-- part: whole_event
SELECT id, source, type, dedup_key, status, attempts, received_at, processed_at, headers, body, request_id, format,
       form_field
FROM postern.events
WHERE id = %(id)s

-- name: lock_stored_event
/* whole_event */
FOR UPDATE

-- name: settle_replay_item
UPDATE postern.replay_items
SET state = %(state)s, tries = %(tries)s, error = %(error)s, changed_at = now()
WHERE replay_id = %(replay_id)s AND event_id = %(event_id)s
