-- What a transaction has changed so far. Transaction ids are compared as they come round: modulo 2^32.

-- name: first_unknown_xid
-- No transaction from this one on is known to the snapshot, which this statement takes.
SELECT (pg_snapshot_xmax(pg_current_snapshot())::text::numeric % 4294967296)::bigint AS xid

-- name: tables_written
SELECT stat.schemaname::text AS schema,
       stat.relname::text AS name,
       (SELECT namespace.nspname || '.' || class.relname
        FROM pg_class AS class
        JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        WHERE class.oid = coalesce(pg_partition_root(stat.relid), stat.relid)) AS shown,
       coalesce(
         (SELECT array_agg(attribute.attname::text ORDER BY attribute.attnum)
          FROM pg_index
          JOIN pg_attribute AS attribute
            ON attribute.attrelid = pg_index.indrelid AND attribute.attnum = ANY (pg_index.indkey)
          WHERE pg_index.indrelid = stat.relid AND pg_index.indisprimary),
         '{}') AS key,
       stat.n_tup_ins::integer AS inserted,
       stat.n_tup_upd::integer AS updated,
       stat.n_tup_del::integer AS deleted
FROM pg_stat_xact_user_tables AS stat
WHERE stat.n_tup_ins + stat.n_tup_upd + stat.n_tup_del > 0
  AND NOT starts_with(stat.schemaname::text, 'pg_')
ORDER BY stat.schemaname, stat.relname

-- name: rows_written
SELECT to_jsonb(seen) AS row
FROM ONLY {table} AS seen
WHERE seen.xmin::text::bigint >= 3
  AND ((seen.xmin::text::bigint - %(start)s) & 4294967295) < 2147483648
LIMIT %(limit)s

-- name: rows_touched
SELECT to_jsonb(seen) AS row
FROM ONLY {table} AS seen
WHERE seen.xmax::text::bigint >= 3
  AND ((seen.xmax::text::bigint - %(start)s) & 4294967295) < 2147483648
LIMIT %(limit)s

-- name: rows_by_key
SELECT to_jsonb(seen) AS row
FROM ONLY {table} AS seen
JOIN jsonb_populate_recordset(NULL::{table}, %(rows)s::jsonb) AS wanted USING ({key})

-- name: tables_locked_whole
-- As TRUNCATE and ALTER do, whose work is in no count.
SELECT DISTINCT namespace.nspname || '.' || class.relname AS shown
FROM pg_locks AS held
JOIN pg_class AS class ON class.oid = held.relation AND class.relkind IN ('r', 'p')
JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
WHERE held.pid = pg_backend_pid() AND held.mode = 'AccessExclusiveLock' AND NOT starts_with(namespace.nspname, 'pg_')
ORDER BY shown
