-- Events, the keys that make deliveries the same event, and what came again.
-- postern.events is a public contract: columns are added, never renamed or dropped (docs/sql.md).

CREATE FUNCTION postern.uuid7_floor(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid;

COMMENT ON FUNCTION postern.uuid7_floor IS
  'The smallest id that an event received at this time can have: compare ids with it to search by time.';

CREATE TABLE postern.events (
  id            uuid        NOT NULL,
  source        text        NOT NULL,
  type          text        NOT NULL,
  dedup_key     text        NOT NULL,
  status        text        NOT NULL,
  attempts      integer     NOT NULL,
  error         text,
  received_at   timestamptz NOT NULL,
  processed_at  timestamptz,
  headers       jsonb       NOT NULL,
  payload       jsonb,
  body          bytea       NOT NULL,
  CONSTRAINT events_pkey PRIMARY KEY (id),
  CONSTRAINT events_status_is_known CHECK (status IN ('processed', 'failed', 'dead')),
  CONSTRAINT events_processed_has_a_time CHECK ((status = 'processed') = (processed_at IS NOT NULL)),
  CONSTRAINT events_unprocessed_has_an_error CHECK ((status = 'processed') = (error IS NULL)),
  CONSTRAINT events_attempts_count_from_one CHECK (attempts >= 1)
) PARTITION BY RANGE (id);

CREATE INDEX events_source_type_id ON postern.events (source, type, id);
CREATE INDEX events_unprocessed ON postern.events (id) WHERE status <> 'processed';

COMMENT ON TABLE postern.events IS 'One row an event, written exactly once; partitioned by day of receipt.';
COMMENT ON COLUMN postern.events.id IS 'UUIDv7: sorts by time of receipt.';
COMMENT ON COLUMN postern.events.payload IS
  'The body as JSON, with U+FFFD for what jsonb cannot hold; NULL where it cannot be jsonb at all.';
COMMENT ON COLUMN postern.events.body IS 'The exact bytes that came.';

-- Catches every event that has no partition of its own, so that a missing one never blocks an event.
CREATE TABLE postern.events_default PARTITION OF postern.events DEFAULT;

-- Narrow and apart from the events, so that dropping old payloads does not reopen the door to replays.
CREATE TABLE postern.dedup_keys (
  source      text        NOT NULL,
  key         text        NOT NULL,
  event_id    uuid        NOT NULL,
  claimed_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT dedup_keys_pkey PRIMARY KEY (source, key)
);

CREATE TABLE postern.duplicates (
  id           uuid        NOT NULL,
  event_id     uuid        NOT NULL,
  source       text        NOT NULL,
  received_at  timestamptz NOT NULL,
  CONSTRAINT duplicates_pkey PRIMARY KEY (id)
);
CREATE INDEX duplicates_event_id ON postern.duplicates (event_id);

COMMENT ON TABLE postern.duplicates IS
  'Accepted deliveries of an event that was there already: the id that the sender got, and the event it repeats.';

-- Makes the daily partitions from today to `days_ahead`; returns how many it made. Rows that the default
-- partition caught for such a day move along.
CREATE FUNCTION postern.ensure_partitions(days_ahead integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  today   date := (now() AT TIME ZONE 'UTC')::date;
  day     date;
  name    text;
  low     uuid;
  high    uuid;
  made    integer := 0;
BEGIN
  -- One maker at a time; two would wait for each other's locks.
  PERFORM pg_advisory_xact_lock(hashtext('postern.ensure_partitions'));
  FOR day IN SELECT today + n FROM generate_series(0, days_ahead) AS n LOOP
    name := 'events_' || to_char(day, 'YYYYMMDD');
    CONTINUE WHEN to_regclass('postern.' || name) IS NOT NULL;
    low  := postern.uuid7_floor(day::timestamp AT TIME ZONE 'UTC');
    high := postern.uuid7_floor((day + 1)::timestamp AT TIME ZONE 'UTC');
    EXECUTE format('CREATE TABLE postern.%I (LIKE postern.events INCLUDING ALL)', name);
    -- The default partition must be empty of the day's rows before the day can have its own.
    LOCK TABLE postern.events_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format(
      'WITH moved AS (DELETE FROM postern.events_default WHERE id >= %L AND id < %L RETURNING *)
       INSERT INTO postern.%I SELECT * FROM moved', low, high, name);
    EXECUTE format(
      'ALTER TABLE postern.events ATTACH PARTITION postern.%I FOR VALUES FROM (%L) TO (%L)',
      name, low, high);
    made := made + 1;
  END LOOP;
  RETURN made;
END
$$;

SELECT postern.ensure_partitions(14);
