-- What the team's handlers have had to do.

-- name: kinds_of_late
-- Of the last day, by whole hours.
SELECT source, type, sum(events)::bigint AS events
FROM postern.counts
WHERE hour >= now() - interval '1 day'
GROUP BY source, type

-- name: failures_of_handlers
SELECT handler, count(*) AS failures, max(started_at) AS last_failure
FROM postern.attempts
WHERE issue_id IS NOT NULL AND event_id >= postern.uuid7_floor(now() - interval '7 days')
GROUP BY handler

-- name: tries_of_late
-- The newest thousand, whose time is that of all handlers of the event.
SELECT source, type, duration_ms
FROM postern.events
WHERE duration_ms IS NOT NULL AND id >= postern.uuid7_floor(now() - interval '7 days')
ORDER BY id DESC
LIMIT 1000
