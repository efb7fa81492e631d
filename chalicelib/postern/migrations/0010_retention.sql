-- Partitions that are made, filled and dropped one at a time, each in a transaction of its own, so that whoever calls
-- can bound how long writers wait (docs/storage.md). They treat every partitioned table alike: postern.events, and
-- postern.attempts where there is one. postern.ensure_partitions stays for a maintenance of before this.
-- Nothing here locks a table: a living database takes it at once.

CREATE FUNCTION postern.uuid7_time(id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN to_timestamp(('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint / 1000.0);

COMMENT ON FUNCTION postern.uuid7_time IS 'When an event of this id was received, to the millisecond.';

CREATE VIEW postern.partitions AS
SELECT parent.relname::text AS parent,
       part.relname::text AS name,
       postern.uuid7_time(bound[1]::uuid) AS since,
       postern.uuid7_time(bound[2]::uuid) AS until
FROM pg_catalog.pg_inherits AS inherits
JOIN pg_catalog.pg_class AS parent ON parent.oid = inherits.inhparent
JOIN pg_catalog.pg_class AS part ON part.oid = inherits.inhrelid
LEFT JOIN LATERAL regexp_match(
  pg_get_expr(part.relpartbound, part.oid), 'FROM \(''([0-9a-f-]{36})''\) TO \(''([0-9a-f-]{36})''\)'
) AS bound ON true
WHERE parent.relnamespace = 'postern'::regnamespace AND parent.relname IN ('events', 'attempts');

COMMENT ON VIEW postern.partitions IS
  'The partitions by day; the default one, which takes what has no home, has neither `since` nor `until`.';

-- The column that a table is partitioned by.
CREATE FUNCTION postern.partition_key(parent text) RETURNS text
LANGUAGE sql STABLE STRICT
RETURN (
  SELECT attribute.attname::text
  FROM pg_catalog.pg_partitioned_table AS partitioned
  JOIN pg_catalog.pg_attribute AS attribute
    ON attribute.attrelid = partitioned.partrelid AND attribute.attnum = partitioned.partattrs[0]
  WHERE partitioned.partrelid = to_regclass(format('postern.%I', parent))
);

-- The days, both bounds included, of which the default partition holds rows.
CREATE FUNCTION postern.days_without_partition(parent text, first date, last date) RETURNS SETOF date
LANGUAGE plpgsql STABLE STRICT AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT DISTINCT (postern.uuid7_time(%1$I) AT TIME ZONE ''UTC'')::date AS day FROM postern.%2$I
     WHERE %1$I >= %3$L AND %1$I < %4$L ORDER BY day',
    postern.partition_key(parent), parent || '_default',
    postern.uuid7_floor(first::timestamp AT TIME ZONE 'UTC'),
    postern.uuid7_floor((last + 1)::timestamp AT TIME ZONE 'UTC'));
END
$$;

-- Makes a day's partition, and moves there what the default one caught; how many rows, or NULL where it was there.
CREATE FUNCTION postern.make_partition(parent text, day date) RETURNS bigint
LANGUAGE plpgsql STRICT AS $$
DECLARE
  name   text := parent || '_' || to_char(day, 'YYYYMMDD');
  low    uuid := postern.uuid7_floor(day::timestamp AT TIME ZONE 'UTC');
  high   uuid := postern.uuid7_floor((day + 1)::timestamp AT TIME ZONE 'UTC');
  moved  bigint;
BEGIN
  -- One maker at a time; two would wait for each other's locks.
  PERFORM pg_advisory_xact_lock(hashtext('postern.ensure_partitions'));
  IF to_regclass(format('postern.%I', name)) IS NOT NULL THEN
    RETURN NULL;
  END IF;
  -- The parent first, as every statement locks them; in a mode that lets writers through. The default partition is the
  -- one lock that writers may hold: with it, there is nothing left to wait for, and so no circle.
  EXECUTE format('LOCK TABLE ONLY postern.%I IN SHARE UPDATE EXCLUSIVE MODE', parent);
  EXECUTE format('CREATE TABLE postern.%I (LIKE postern.%I INCLUDING ALL)', name, parent);
  EXECUTE format('LOCK TABLE postern.%I IN ACCESS EXCLUSIVE MODE', parent || '_default');
  -- It must be empty of the day's rows before the day can have its own partition.
  EXECUTE format(
    'WITH moved AS (DELETE FROM postern.%1$I WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING *)
     INSERT INTO postern.%5$I SELECT * FROM moved',
    parent || '_default', postern.partition_key(parent), low, high, name);
  GET DIAGNOSTICS moved = ROW_COUNT;
  EXECUTE format('ALTER TABLE postern.%I ATTACH PARTITION postern.%I FOR VALUES FROM (%L) TO (%L)', parent, name, low, high);
  RETURN moved;
END
$$;

-- Takes a partition out, under another name. Rows with these keys stay, in the default partition, and with `unresolved`
-- those whose events are not processed; how many stay, or NULL where the partition is gone already.
CREATE FUNCTION postern.retire_partition(parent text, name text, keep uuid[], unresolved boolean) RETURNS bigint
LANGUAGE plpgsql STRICT AS $$
DECLARE
  kept  bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('postern.ensure_partitions'));
  PERFORM FROM postern.partitions AS p WHERE p.parent = $1 AND p.name = $2 AND p.since IS NOT NULL;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  -- Whoever works with a partition holds the parent's lock: with this one, there is nothing left to wait for.
  EXECUTE format('LOCK TABLE ONLY postern.%I IN ACCESS EXCLUSIVE MODE', parent);
  EXECUTE format('ALTER TABLE postern.%I DETACH PARTITION postern.%I', parent, name);
  EXECUTE format(
    'INSERT INTO postern.%1$I SELECT * FROM postern.%2$I WHERE %3$I = ANY ($1)%4$s', parent, name,
    postern.partition_key(parent),
    -- The first condition is that of the index which finds them.
    CASE WHEN unresolved THEN ' OR status <> ''processed'' AND status IN (''failed'', ''dead'')' ELSE '' END)
    USING keep;
  GET DIAGNOSTICS kept = ROW_COUNT;
  EXECUTE format('ALTER TABLE postern.%I RENAME TO %I', name, name || '_retired');
  RETURN kept;
END
$$;

-- Drops what was taken out. What was written to it between the choice of what stays and the lock is found now, when
-- the search blocks nobody: events settled since then, and attempts at events that are there; how many those were.
CREATE FUNCTION postern.drop_retired(parent text, name text, settled_since timestamptz) RETURNS bigint
LANGUAGE plpgsql STRICT AS $$
DECLARE
  kept  bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('postern.ensure_partitions'));
  IF to_regclass(format('postern.%I', name)) IS NULL THEN
    RETURN 0;
  END IF;
  EXECUTE format(
    'INSERT INTO postern.%1$I SELECT * FROM postern.%2$I AS retired WHERE %3$s ON CONFLICT DO NOTHING', parent, name,
    CASE parent
      WHEN 'events' THEN 'processed_at >= $1'
      ELSE format('EXISTS (SELECT FROM postern.events AS event WHERE event.id = retired.%I)', postern.partition_key(parent))
    END)
    USING settled_since;
  GET DIAGNOSTICS kept = ROW_COUNT;
  EXECUTE format('DROP TABLE postern.%I', name);
  RETURN kept;
END
$$;

-- Attempts have had none so far, and are caught by their default partition until then.
SELECT postern.make_partition('attempts', (now() AT TIME ZONE 'UTC')::date + n) FROM generate_series(0, 14) AS n;
