-- Failed attempts, grouped.

-- name: list_issues
-- The cursor is the place in this order that an issue had when it was listed: it may have moved since.
SELECT id, state, count, handler, error_class, message, first_seen, last_seen,
       concat_ws('.', (state <> 'resolved')::integer, (extract(epoch FROM last_seen) * 1000000)::bigint, id) AS cursor
FROM postern.issues
WHERE (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(before)s::text IS NULL
       OR (state <> 'resolved', last_seen, id)
          < (split_part(%(before)s, '.', 1) = '1',
             to_timestamp(0) + make_interval(secs => split_part(%(before)s, '.', 2)::numeric / 1000000),
             split_part(%(before)s, '.', 3)))
ORDER BY (state <> 'resolved') DESC, last_seen DESC, id DESC
LIMIT %(limit)s

-- name: find_issue
SELECT id, state, count, handler, error_class, message, first_seen, last_seen, first_event, last_event,
       state_changed_at
FROM postern.issues
WHERE id LIKE %(id)s || '%%'
LIMIT 2

-- name: attempts_of_issue
SELECT event_id AS id, event.source, event.type, event.status, attempt.number, attempt.started_at, attempt.message
FROM postern.attempts AS attempt
LEFT JOIN postern.events AS event ON event.id = attempt.event_id
WHERE issue_id = %(id)s
ORDER BY event_id DESC
LIMIT 10

-- name: events_of_issue
-- What is still to be done about it: its events by their status now.
SELECT status, count(*) AS count
FROM postern.events
WHERE id IN (SELECT event_id FROM postern.attempts WHERE issue_id = %(id)s)
GROUP BY status
ORDER BY status

-- name: last_traceback_of_issue
SELECT traceback FROM postern.attempts WHERE issue_id = %(id)s ORDER BY event_id DESC, number DESC LIMIT 1

-- name: set_issue
UPDATE postern.issues SET state = %(state)s, state_changed_at = now() WHERE id = %(id)s RETURNING id
