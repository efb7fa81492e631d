-- Partitions, sizes and retention.

-- name: bound_locks
-- From the moment that a lock is asked for, writers wait behind it: so the whole statement is bounded, too.
SELECT set_config('lock_timeout', '1s', true), set_config('statement_timeout', '2s', true)

-- name: partitioned_tables
-- The events first: what is kept of them decides what is kept of the others.
SELECT DISTINCT parent, parent <> 'events' AS after FROM postern.partitions ORDER BY after, parent

-- name: partitions
SELECT parent, name, since, until FROM postern.partitions WHERE since IS NOT NULL ORDER BY since, name

-- name: days_without_partition
SELECT day
FROM postern.days_without_partition(%(parent)s::text, %(first)s::date, %(last)s::date) AS day

-- name: make_partition
SELECT postern.make_partition(%(parent)s::text, %(day)s::date) AS moved

-- name: days_without_payload_index
-- The newest first. `left`: one that was begun and not finished, which is there and of no use.
SELECT partition.name, index.oid IS NOT NULL AS left
FROM postern.partitions AS partition
LEFT JOIN pg_catalog.pg_class AS index
  ON index.relnamespace = 'postern'::regnamespace AND index.relname = partition.name || '_payload'
LEFT JOIN pg_catalog.pg_index AS about ON about.indexrelid = index.oid
WHERE partition.parent = 'events' AND partition.until <= %(closed)s AND about.indisvalid IS NOT TRUE
ORDER BY partition.since DESC

-- name: settled_since
SELECT id
FROM postern.events
WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s) AND processed_at >= %(settled_since)s

-- name: kept_events
SELECT id
FROM postern.events_default
WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s)

-- name: retire_partition
SELECT postern.retire_partition(%(parent)s::text, %(name)s::text, %(keep)s::uuid[], %(unresolved)s::boolean) AS kept

-- name: retired_partitions
SELECT part.relname::text AS name, split_part(part.relname::text, '_', 1) AS parent
FROM pg_catalog.pg_class AS part
WHERE part.relnamespace = 'postern'::regnamespace AND part.relname ~ '^(events|attempts)_[0-9]{8}_retired$'
ORDER BY parent DESC, name

-- name: drop_retired
SELECT postern.drop_retired(%(parent)s::text, %(name)s::text, %(settled_since)s::timestamptz) AS kept

-- name: delete_events
-- What is locked is being worked on, and is looked at again the next time; so no deletion waits for anybody.
WITH gone AS (
  DELETE FROM postern.events_default
  WHERE ctid = ANY (ARRAY(
    SELECT ctid
    FROM postern.events_default
    WHERE id < postern.uuid7_floor(%(before)s)
      AND (status NOT IN ('failed', 'dead') AND processed_at < %(settled_before)s
           OR id < postern.uuid7_floor(%(unresolved_before)s))
    ORDER BY id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED))
  RETURNING id
)
SELECT count(*) AS deleted FROM gone

-- name: delete_attempts
WITH gone AS (
  DELETE FROM postern.attempts_default
  WHERE ctid = ANY (ARRAY(
    SELECT attempt.ctid
    FROM postern.attempts_default AS attempt
    WHERE attempt.event_id < postern.uuid7_floor(%(before)s)
      AND NOT EXISTS (
        SELECT FROM postern.events AS event
        WHERE event.id = attempt.event_id AND event.id < postern.uuid7_floor(%(before)s))
    ORDER BY attempt.event_id
    LIMIT %(limit)s
    FOR UPDATE OF attempt SKIP LOCKED))
  RETURNING event_id
)
SELECT count(*) AS deleted FROM gone

-- name: delete_duplicates
-- By their own age as well: an old event may be repeated today, and that delivery's id was given out today.
WITH gone AS (
  DELETE FROM postern.duplicates
  WHERE ctid = ANY (ARRAY(
    SELECT duplicate.ctid
    FROM postern.duplicates AS duplicate
    WHERE duplicate.id < postern.uuid7_floor(%(before)s)
      AND NOT EXISTS (
        SELECT FROM postern.events AS event
        WHERE event.id = duplicate.event_id AND event.id < postern.uuid7_floor(%(before)s))
    ORDER BY duplicate.id
    LIMIT %(limit)s
    FOR UPDATE OF duplicate SKIP LOCKED))
  RETURNING id
)
SELECT count(*) AS deleted FROM gone

-- name: delete_deliveries
-- The events of a delivery were received in one moment, so their ids lie in one millisecond.
WITH gone AS (
  DELETE FROM postern.deliveries
  WHERE ctid = ANY (ARRAY(
    SELECT delivery.ctid
    FROM postern.deliveries AS delivery
    WHERE delivery.id < postern.uuid7_floor(%(before)s)
      AND NOT EXISTS (
        SELECT FROM postern.events AS event
        WHERE event.id >= postern.uuid7_floor(postern.uuid7_time(delivery.id))
          AND event.id < postern.uuid7_floor(postern.uuid7_time(delivery.id) + interval '1 millisecond')
          AND event.id < postern.uuid7_floor(%(before)s)
          AND event.delivery_id = delivery.id)
    ORDER BY delivery.id
    LIMIT %(limit)s
    FOR UPDATE OF delivery SKIP LOCKED))
  RETURNING id
)
SELECT count(*) AS deleted FROM gone

-- name: key_pages
SELECT (pg_relation_size('postern.dedup_keys') / current_setting('block_size')::integer)::integer AS pages

-- name: delete_keys
-- From these pages of the table: so it needs no index on the time, which every event would have to pay for. The key of
-- an event that is still there is held: without it, that event's next try would seem to be its first.
WITH gone AS (
  DELETE FROM postern.dedup_keys
  WHERE ctid = ANY (ARRAY(
    SELECT held.ctid
    FROM postern.dedup_keys AS held
    WHERE held.ctid >= format('(%%s,0)', %(page)s)::tid AND held.ctid < format('(%%s,0)', %(page_after)s)::tid
      AND held.claimed_at < %(before)s
      AND NOT EXISTS (
        SELECT FROM postern.events AS event
        WHERE event.id = held.event_id AND event.id < postern.uuid7_floor(%(before)s))
    FOR UPDATE OF held SKIP LOCKED))
  RETURNING event_id
)
SELECT count(*) AS deleted FROM gone

-- name: table_sizes
-- A partitioned table with all of its partitions. What was never analyzed has no estimate but the statistics' own.
SELECT whole.relname::text AS name,
       coalesce(sum(size.total), 0)::bigint AS bytes,
       coalesce(sum(size.total - size.indexes - size.toast), 0)::bigint AS heap_bytes,
       coalesce(sum(size.indexes), 0)::bigint AS index_bytes,
       coalesce(sum(size.toast), 0)::bigint AS toast_bytes,
       sum(coalesce(nullif(stats.n_live_tup, 0), greatest(part.reltuples, 0)::bigint))::bigint AS rows,
       coalesce(sum(stats.n_dead_tup), 0)::bigint AS dead_rows,
       max(greatest(stats.last_autovacuum, stats.last_vacuum)) AS last_vacuum
FROM pg_catalog.pg_class AS part
LEFT JOIN pg_catalog.pg_inherits AS inherits ON inherits.inhrelid = part.oid AND part.relispartition
JOIN pg_catalog.pg_class AS whole ON whole.oid = coalesce(inherits.inhparent, part.oid)
LEFT JOIN pg_catalog.pg_stat_user_tables AS stats ON stats.relid = part.oid
CROSS JOIN LATERAL (
  SELECT pg_total_relation_size(part.oid) AS total,
         pg_indexes_size(part.oid) AS indexes,
         CASE WHEN part.reltoastrelid = 0 THEN 0 ELSE pg_total_relation_size(part.reltoastrelid) END AS toast
) AS size
WHERE part.relnamespace = 'postern'::regnamespace AND part.relkind = 'r'
GROUP BY whole.relname
ORDER BY bytes DESC, name

-- name: index_health
-- An index of a partitioned table with all of its parts.
SELECT owner.relname::text AS table,
       -- The payloads' has no parent: each day gets its own, and the present one has none.
       regexp_replace(whole.relname, '^events_[0-9]{8}_payload$', 'events_payload') AS name,
       coalesce(sum(pg_relation_size(part.oid)), 0)::bigint AS bytes,
       coalesce(sum(stats.idx_scan), 0)::bigint AS scans,
       bool_or(index.indisunique) AS unique,
       bool_and(index.indisvalid AND index.indisready) AS valid
FROM pg_catalog.pg_index AS index
JOIN pg_catalog.pg_class AS part ON part.oid = index.indexrelid AND part.relkind = 'i'
JOIN pg_catalog.pg_class AS leaf ON leaf.oid = index.indrelid
LEFT JOIN pg_catalog.pg_inherits AS of_index ON of_index.inhrelid = part.oid
JOIN pg_catalog.pg_class AS whole ON whole.oid = coalesce(of_index.inhparent, part.oid)
LEFT JOIN pg_catalog.pg_inherits AS of_table ON of_table.inhrelid = leaf.oid
JOIN pg_catalog.pg_class AS owner ON owner.oid = coalesce(of_table.inhparent, leaf.oid)
LEFT JOIN pg_catalog.pg_stat_user_indexes AS stats ON stats.indexrelid = part.oid
WHERE leaf.relnamespace = 'postern'::regnamespace
GROUP BY owner.relname, 2
ORDER BY bytes DESC, name

-- name: default_events
SELECT count(*) AS rows,
       count(*) FILTER (WHERE id >= postern.uuid7_floor(%(before)s) AND id < postern.uuid7_floor(%(ahead)s)) AS to_move,
       count(*) FILTER (WHERE id < postern.uuid7_floor(%(before)s) AND status IN ('failed', 'dead')) AS unresolved
FROM postern.events_default

-- name: default_attempts
SELECT count(*) AS rows,
       count(*) FILTER (WHERE event_id >= postern.uuid7_floor(%(before)s) AND event_id < postern.uuid7_floor(%(ahead)s))
         AS to_move
FROM postern.attempts_default

-- name: oldest_key
-- Of a sample, when there are so many that looking at all of them would take long.
SELECT min(claimed_at) AS oldest FROM postern.dedup_keys TABLESAMPLE SYSTEM (%(percent)s)

-- name: delete_replays
WITH gone AS (
  DELETE FROM postern.replays
  WHERE id = ANY (ARRAY(
    SELECT id FROM postern.replays WHERE state <> 'running' AND finished_at < %(before)s ORDER BY id LIMIT 10))
  RETURNING id
)
SELECT count(*) AS deleted FROM gone

-- name: delete_entities
WITH gone AS (
  DELETE FROM postern.entities
  WHERE ctid = ANY (ARRAY(SELECT ctid FROM postern.entities WHERE at < %(before)s LIMIT %(limit)s))
    AND at < %(before)s
  RETURNING event_id
)
SELECT count(*) AS deleted FROM gone

-- name: delete_postponed
WITH gone AS (
  DELETE FROM postern.postponed
  WHERE ctid = ANY (ARRAY(SELECT ctid FROM postern.postponed WHERE again_at < %(before)s LIMIT %(limit)s))
    AND again_at < %(before)s
  RETURNING try_id
)
SELECT count(*) AS deleted FROM gone

-- name: knows_migrations
SELECT to_regclass('postern.migrations') IS NOT NULL AS known

-- name: applied_migrations
SELECT owner, name, checksum FROM postern.migrations
