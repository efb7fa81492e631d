-- Comparing a source's events with its provider's own history.

-- name: begin_reconciliation
INSERT INTO postern.reconciliations (id, source, since, only_looks, hourly)
VALUES (%(id)s, %(source)s, %(since)s, %(only_looks)s, %(hourly)s)
ON CONFLICT (source) WHERE state IN ('listing', 'fetching') DO NOTHING
RETURNING id

-- name: make_way
-- One that only looks is in the way of one that fetches.
UPDATE postern.reconciliations SET state = 'cancelled', ended_at = now(), changed_at = now()
WHERE source = %(source)s AND only_looks AND NOT %(only_looks)s AND state IN ('listing', 'fetching')

-- name: reconciled_to
-- Where the next hourly one begins: so long before the last one, and at what was fetched and did not become an event.
SELECT least(
  (SELECT max(started_at) - make_interval(secs => %(overlap)s) FROM postern.reconciliations
   WHERE source = %(source)s AND hourly AND state = 'done'),
  (SELECT min(gap.happened_at) FROM postern.gaps AS gap
   WHERE gap.source = %(source)s AND gap.state = 'fetched' AND gap.changed_at < now() - interval '50 minutes'
     AND gap.changed_at > now() - interval '1 day'
     AND NOT EXISTS (SELECT FROM postern.dedup_keys AS held WHERE held.source = gap.source AND held.key = gap.key))
) AS since
WHERE EXISTS (SELECT FROM postern.reconciliations WHERE source = %(source)s AND hourly AND state = 'done')

-- name: lock_reconciliation
-- Two who take a step of it at once come one after the other.
SELECT FROM postern.reconciliations WHERE id = %(id)s FOR UPDATE

-- name: running_reconciliation
SELECT id FROM postern.reconciliations WHERE source = %(source)s AND state IN ('listing', 'fetching')

-- part: reconciliation
SELECT id, source, since, only_looks, hourly, state, cursor, listed, missing, refused, dead, fetched, arrived, no_event, failed,
       error, started_at, changed_at, ended_at
FROM postern.reconciliations

-- name: show_reconciliation
/* reconciliation */
WHERE id = %(id)s

-- name: list_reconciliations
/* reconciliation */
WHERE (%(source)s::text IS NULL OR source = %(source)s) AND (%(before)s::uuid IS NULL OR id < %(before)s)
ORDER BY id DESC
LIMIT %(limit)s

-- name: list_gaps
SELECT key, kind, happened_at, type, state, event_id, rejected_id, note
FROM postern.gaps
WHERE found_by = %(id)s AND (%(after)s::text IS NULL OR key > %(after)s)
ORDER BY key
LIMIT %(limit)s

-- name: lock_listing
-- Whoever asked for the same page, and came second, has nothing to say any more.
SELECT source, since FROM postern.reconciliations
WHERE id = %(id)s AND state = 'listing' AND cursor IS NOT DISTINCT FROM %(cursor)s
FOR UPDATE

-- name: note_gaps
-- What was fetched a while ago may still be in the queue. A refused delivery is found by the id in its headers, or at
-- the beginning of its body.
WITH listed AS (
  SELECT DISTINCT ON (key) key, happened_at, type, handle, bool_or(refused) OVER (PARTITION BY key) AS refused
  FROM unnest(%(keys)s::text[], %(times)s::timestamptz[], %(types)s::text[], %(handles)s::text[], %(refused)s::boolean[])
    AS entry (key, happened_at, type, handle, refused)
  ORDER BY key, happened_at
), kept AS MATERIALIZED (
  SELECT id, signed_id, headers::text AS headers, substring(body FOR 4096) AS beginning
  FROM postern.rejected
  WHERE source = %(source)s AND event_id IS NULL
    AND id >= postern.uuid7_floor((SELECT min(happened_at) FROM listed) - interval '1 hour')
  ORDER BY id DESC
  LIMIT 2000
), judged AS (
  SELECT listed.*, event.id AS event_id, refusal.id AS rejected_id,
         CASE WHEN held.event_id IS NOT NULL THEN 'dead'
              WHEN refusal.id IS NOT NULL OR listed.refused THEN 'refused'
              ELSE 'missing' END AS kind
  FROM listed
  LEFT JOIN postern.dedup_keys AS held ON held.source = %(source)s AND held.key = listed.key
  LEFT JOIN postern.events AS event ON event.id = held.event_id
  LEFT JOIN LATERAL (
    SELECT kept.id
    FROM kept
    WHERE held.event_id IS NULL
      AND (kept.signed_id = listed.key OR position(listed.key IN kept.headers) > 0
           OR position(convert_to(listed.key, 'UTF8') IN kept.beginning) > 0)
    LIMIT 1
  ) AS refusal ON true
  WHERE held.event_id IS NULL OR event.status = 'dead'
)
INSERT INTO postern.gaps AS known (source, key, kind, happened_at, type, handle, found_by, event_id, rejected_id)
SELECT %(source)s, key, kind, happened_at, type, handle, %(id)s, event_id, rejected_id
FROM judged
ORDER BY key
ON CONFLICT (source, key) DO UPDATE
SET kind = excluded.kind, handle = excluded.handle, found_by = excluded.found_by, found_at = now(), state = 'open',
    changed_at = now(), tries = 0, event_id = excluded.event_id, rejected_id = excluded.rejected_id, note = NULL
WHERE known.found_by <> excluded.found_by AND known.state <> 'no_event'
  AND NOT (known.state = 'fetched' AND known.changed_at > now() - interval '50 minutes')
RETURNING kind

-- name: advance_listing
UPDATE postern.reconciliations
SET cursor = %(next)s, listed = listed + %(listed)s, missing = missing + %(missing)s, refused = refused + %(refused)s,
    dead = dead + %(dead)s, changed_at = now(),
    state = CASE WHEN %(next)s::text IS NOT NULL THEN 'listing' WHEN only_looks THEN 'done' ELSE 'fetching' END,
    ended_at = CASE WHEN %(next)s::text IS NULL AND only_looks THEN now() END
WHERE id = %(id)s

-- name: note_arrivals
-- What was on its way while the provider's history was read.
UPDATE postern.gaps AS gap
SET state = 'arrived', event_id = held.event_id, changed_at = now()
FROM postern.reconciliations AS run, postern.dedup_keys AS held
WHERE run.id = %(id)s AND run.state = 'fetching' AND gap.found_by = run.id AND gap.state = 'open' AND gap.kind <> 'dead'
  AND held.source = gap.source AND held.key = gap.key
RETURNING gap.state

-- name: open_gaps
SELECT gap.key, gap.handle, gap.kind
FROM postern.gaps AS gap
JOIN postern.reconciliations AS run ON run.id = gap.found_by
WHERE run.id = %(id)s AND run.state = 'fetching' AND gap.state = 'open' AND gap.kind <> 'dead'
ORDER BY gap.tries, gap.happened_at, gap.key
LIMIT %(limit)s

-- name: settle_gaps
-- What is tried again comes behind the others, three times in all.
UPDATE postern.gaps AS gap
SET state = CASE WHEN settled.state <> 'again' THEN settled.state WHEN gap.tries < 2 THEN 'open' ELSE 'failed' END,
    tries = gap.tries + 1, event_id = settled.event_id, note = settled.note, changed_at = now()
FROM unnest(%(keys)s::text[], %(states)s::text[], %(events)s::uuid[], %(notes)s::text[])
  AS settled (key, state, event_id, note)
WHERE gap.found_by = %(id)s AND gap.key = settled.key AND gap.state = 'open'
RETURNING gap.state

-- name: count_settled
UPDATE postern.reconciliations
SET fetched = fetched + %(fetched)s, arrived = arrived + %(arrived)s, no_event = no_event + %(no_event)s,
    failed = failed + %(failed)s, changed_at = now()
WHERE id = %(id)s

-- name: resolve_refused
UPDATE postern.rejected AS kept
SET event_id = gap.event_id, note = 'fetched from its provider''s history'
FROM postern.gaps AS gap
WHERE gap.found_by = %(id)s AND gap.key = ANY (%(keys)s::text[]) AND gap.state = 'fetched'
  AND kept.id = gap.rejected_id AND kept.event_id IS NULL

-- name: finish_reconciliation
UPDATE postern.reconciliations AS run
SET state = 'done', ended_at = now(), changed_at = now()
WHERE id = %(id)s AND state = 'fetching'
  AND NOT EXISTS (
    SELECT FROM postern.gaps AS gap WHERE gap.found_by = run.id AND gap.state = 'open' AND gap.kind <> 'dead'
  )

-- name: end_reconciliation
UPDATE postern.reconciliations
SET state = %(state)s, error = %(error)s, ended_at = now(), changed_at = now()
WHERE id = %(id)s AND state IN ('listing', 'fetching')
RETURNING id

-- name: drop_reconciliations
WITH dropped AS (
  DELETE FROM postern.reconciliations
  WHERE id < postern.uuid7_floor(now() - make_interval(days => %(days)s)) AND state NOT IN ('listing', 'fetching')
  RETURNING id
), gaps AS (
  DELETE FROM postern.gaps WHERE found_at < now() - make_interval(days => %(days)s)
)
SELECT count(*) AS dropped FROM dropped
