-- Tries that were begun of events that had come before without a verdict. What ended the function is still here when
-- the event comes again, and is charged for it.

CREATE TABLE postern.open_tries (
  event_id   uuid        NOT NULL,
  opened     integer     NOT NULL DEFAULT 1,
  opened_at  timestamptz NOT NULL DEFAULT now(),
  ends_at    timestamptz NOT NULL,
  CONSTRAINT open_tries_pkey PRIMARY KEY (event_id)
);

COMMENT ON TABLE postern.open_tries IS 'Events that are being tried in a process of their own, and those whose function ended in it.';
COMMENT ON COLUMN postern.open_tries.ends_at IS 'When the function that tries it has ended, one way or another.';
COMMENT ON COLUMN postern.open_tries.opened IS 'How often it was begun without an end; twice is the event''s own fault.';

-- Holds a row while handlers are at work in a transaction: a commit that comes before it is taken out fails. So whatever
-- a handler does, nothing of its batch is committed without the events' own rows. No row here is ever committed.
CREATE UNLOGGED TABLE postern.seals (id xid8 NOT NULL DEFAULT pg_current_xact_id());

CREATE FUNCTION postern.refuse_to_commit() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM postern.seals WHERE id = NEW.id) THEN
    RAISE EXCEPTION 'A handler tried to commit the transaction that it shares with other events.'
      USING ERRCODE = 'invalid_transaction_termination';
  END IF;
  RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER seals_hold AFTER INSERT ON postern.seals
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION postern.refuse_to_commit();

COMMENT ON TABLE postern.seals IS 'Always empty, as others see it: what keeps handlers from committing their batch.';

-- From here on: a table may have columns of the team's own, generated ones among them, which are computed wherever a row
-- goes and cannot be written.

CREATE FUNCTION postern.stored_columns(parent text) RETURNS text
LANGUAGE sql STABLE STRICT
RETURN (
  SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
  FROM pg_catalog.pg_attribute
  WHERE attrelid = to_regclass(format('postern.%I', parent)) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
);

CREATE OR REPLACE FUNCTION postern.make_partition(parent text, day date) RETURNS bigint
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
    'WITH moved AS (DELETE FROM postern.%1$I WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING %6$s)
     INSERT INTO postern.%5$I (%6$s) SELECT %6$s FROM moved',
    parent || '_default', postern.partition_key(parent), low, high, name, postern.stored_columns(parent));
  GET DIAGNOSTICS moved = ROW_COUNT;
  EXECUTE format('ALTER TABLE postern.%I ATTACH PARTITION postern.%I FOR VALUES FROM (%L) TO (%L)', parent, name, low, high);
  RETURN moved;
END
$$;

CREATE OR REPLACE FUNCTION postern.retire_partition(parent text, name text, keep uuid[], unresolved boolean) RETURNS bigint
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
    'INSERT INTO postern.%1$I (%5$s) SELECT %5$s FROM postern.%2$I WHERE %3$I = ANY ($1)%4$s', parent, name,
    postern.partition_key(parent),
    -- The first condition is that of the index which finds them.
    CASE WHEN unresolved THEN ' OR status <> ''processed'' AND status IN (''failed'', ''dead'')' ELSE '' END,
    postern.stored_columns(parent))
    USING keep;
  GET DIAGNOSTICS kept = ROW_COUNT;
  EXECUTE format('ALTER TABLE postern.%I RENAME TO %I', name, name || '_retired');
  RETURN kept;
END
$$;

CREATE OR REPLACE FUNCTION postern.drop_retired(parent text, name text, settled_since timestamptz) RETURNS bigint
LANGUAGE plpgsql STRICT AS $$
DECLARE
  kept  bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('postern.ensure_partitions'));
  IF to_regclass(format('postern.%I', name)) IS NULL THEN
    RETURN 0;
  END IF;
  EXECUTE format(
    'INSERT INTO postern.%1$I (%4$s) SELECT %4$s FROM postern.%2$I AS retired WHERE %3$s ON CONFLICT DO NOTHING', parent, name,
    CASE parent
      WHEN 'events' THEN 'processed_at >= $1'
      ELSE format('EXISTS (SELECT FROM postern.events AS event WHERE event.id = retired.%I)', postern.partition_key(parent))
    END, postern.stored_columns(parent))
    USING settled_since;
  GET DIAGNOSTICS kept = ROW_COUNT;
  EXECUTE format('DROP TABLE postern.%I', name);
  RETURN kept;
END
$$;

