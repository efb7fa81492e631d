-- Replays: which events match, and each event's turn.

-- name: count_matching
SELECT status, count(*) AS count
FROM postern.events
WHERE /* event_filter */
GROUP BY status
ORDER BY status

-- name: sample_matching
SELECT id, source, type, status, attempts, split_part(error, E'\n', 1) AS error, received_at
FROM postern.events
WHERE /* event_filter */
ORDER BY id
LIMIT %(limit)s

-- name: insert_replay
INSERT INTO postern.replays (id, kind, trigger, filter, rate, total)
VALUES (%(id)s, %(kind)s, %(trigger)s, %(asked)s::jsonb, %(rate)s, %(total)s)
ON CONFLICT (kind) WHERE state = 'running' AND trigger <> 'replay' DO NOTHING
RETURNING id

-- name: running_bulk
SELECT id FROM postern.replays WHERE kind = %(kind)s AND state = 'running' AND trigger <> 'replay'

-- name: insert_replay_items
INSERT INTO postern.replay_items (replay_id, event_id)
SELECT %(replay_id)s::uuid, id
FROM postern.events
WHERE /* event_filter */
ORDER BY id
LIMIT %(limit)s

-- name: set_replay_total
UPDATE postern.replays
SET total = (SELECT count(*) FROM postern.replay_items WHERE replay_id = %(id)s)
WHERE id = %(id)s

-- name: list_replays
SELECT id, kind, trigger, filter, state, total, moved, rate, created_at, finished_at,
       (SELECT count(*) FROM postern.replay_items AS item WHERE replay_id = replays.id AND item.state = 'failed')
         AS failed
FROM postern.replays
WHERE %(before)s::uuid IS NULL OR id < %(before)s
ORDER BY id DESC
LIMIT %(limit)s

-- name: show_replay
SELECT id, kind, trigger, filter, state, total, moved, rate, created_at, advanced_at, finished_at
FROM postern.replays
WHERE id = %(id)s

-- name: count_replay_items
SELECT state, count(*) AS count FROM postern.replay_items WHERE replay_id = %(id)s GROUP BY state ORDER BY state

-- name: failed_replay_items
SELECT event_id AS id, tries, error
FROM postern.replay_items
WHERE replay_id = %(id)s AND state = 'failed'
ORDER BY event_id
LIMIT 20

-- name: finish_replay
UPDATE postern.replays AS replay
SET state = 'done', finished_at = now()
WHERE id = %(id)s AND kind = 'replay' AND state = 'running'
  AND NOT EXISTS (
    SELECT FROM postern.replay_items WHERE replay_id = replay.id AND state IN ('waiting', 'queued'))

-- name: cancel_replay
UPDATE postern.replays
SET state = 'cancelled', finished_at = now()
WHERE id = %(id)s AND state = 'running'
RETURNING id

-- name: cancel_replay_items
UPDATE postern.replay_items SET state = 'cancelled', changed_at = now()
WHERE replay_id = %(id)s AND state = 'waiting'

-- name: lock_replay
SELECT id, kind, filter, rate, total, moved,
       extract(epoch FROM now() - advanced_at)::float8 AS seconds,
       (SELECT count(*) FROM postern.replay_items AS item
        WHERE replay_id = replays.id AND item.state = 'queued' AND NOT EXISTS (
          SELECT FROM postern.postponed AS late WHERE late.event_id = item.event_id AND late.again_at > now()))
         AS queued
FROM postern.replays
WHERE id = %(id)s AND state = 'running'
FOR UPDATE SKIP LOCKED

-- name: take_replay_items
-- MATERIALIZED: joined as it stands, the planner may run the subquery, LIMIT and all, once for each row of the table.
WITH next AS MATERIALIZED (
  SELECT event_id FROM postern.replay_items
  WHERE replay_id = %(id)s AND state = 'waiting'
  ORDER BY event_id
  LIMIT %(limit)s
  FOR UPDATE
), taken AS (
  UPDATE postern.replay_items AS item SET state = 'queued', changed_at = now()
  FROM next
  WHERE item.replay_id = %(id)s AND item.event_id = next.event_id
  RETURNING item.event_id
)
SELECT taken.event_id AS id, event.source, event.type
FROM taken
LEFT JOIN postern.events AS event ON event.id = taken.event_id
ORDER BY taken.event_id

-- name: advance_replay
UPDATE postern.replays
SET moved = moved + %(moved)s,
    advanced_at = now(),
    state = CASE WHEN %(finished)s THEN 'done' ELSE state END,
    finished_at = CASE WHEN %(finished)s THEN now() ELSE finished_at END
WHERE id = %(id)s
