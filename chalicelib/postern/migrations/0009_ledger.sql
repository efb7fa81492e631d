-- The ledger: what was accepted in each minute, and what became of it; and how each source's hours usually are.

CREATE TABLE postern.ledger (
  source       text        NOT NULL,
  minute       timestamptz NOT NULL,
  accepted     bigint      NOT NULL,
  stored       bigint      NOT NULL,
  duplicates   bigint      NOT NULL,
  written_off  bigint      NOT NULL DEFAULT 0,
  note         text,
  missing      bigint      GENERATED ALWAYS AS (greatest(accepted - stored - duplicates - written_off, 0)) STORED,
  surplus      bigint      GENERATED ALWAYS AS (greatest(stored + duplicates - accepted, 0)) STORED,
  CONSTRAINT ledger_pkey PRIMARY KEY (source, minute),
  CONSTRAINT ledger_write_off_has_a_note CHECK (written_off = 0 OR note IS NOT NULL)
);
CREATE INDEX ledger_minute ON postern.ledger (minute);
CREATE INDEX ledger_missing ON postern.ledger (minute) WHERE missing > 0;

COMMENT ON TABLE postern.ledger IS 'Per source and minute of receipt: accepted = stored + duplicates + missing - surplus.';
COMMENT ON COLUMN postern.ledger.accepted IS 'Events that senders got a 202 for, as the API function counted them.';
COMMENT ON COLUMN postern.ledger.stored IS 'Events that have, or had, a row in postern.events, whatever its status.';
COMMENT ON COLUMN postern.ledger.duplicates IS 'Accepted deliveries that repeated an event.';
COMMENT ON COLUMN postern.ledger.written_off IS 'Missing ones that an operator has looked into, and why in `note`.';
COMMENT ON COLUMN postern.ledger.missing IS 'Accepted, and in no table: in the queue or the dead letters, or else lost.';
COMMENT ON COLUMN postern.ledger.surplus IS 'In a table, and not counted as accepted: the count is what is short.';

CREATE TABLE postern.source_hours (
  source          text        NOT NULL,
  hour            timestamptz NOT NULL,
  events          bigint      NOT NULL,
  active_minutes  smallint    NOT NULL,
  longest_gap     integer,
  last_minute     timestamptz NOT NULL,
  CONSTRAINT source_hours_pkey PRIMARY KEY (source, hour),
  CONSTRAINT source_hours_have_sixty_minutes CHECK (active_minutes BETWEEN 1 AND 60)
);
CREATE INDEX source_hours_hour ON postern.source_hours (hour);

COMMENT ON TABLE postern.source_hours IS 'What came from each source in each hour; an hour without anything has no row.';
COMMENT ON COLUMN postern.source_hours.active_minutes IS 'In how many of its minutes something came, repetitions included.';
COMMENT ON COLUMN postern.source_hours.longest_gap IS
  'Minutes from one active minute to the next, the most of those that ended in this hour; NULL for a source''s first.';

CREATE TABLE postern.bookkeeping (
  only_row      boolean     NOT NULL DEFAULT true,
  ledger_begins timestamptz NOT NULL,
  ledger_to     timestamptz NOT NULL,
  hours_to      timestamptz NOT NULL,
  checked_at    timestamptz,
  missing       bigint      NOT NULL DEFAULT 0,
  waiting       bigint      NOT NULL DEFAULT 0,
  CONSTRAINT bookkeeping_pkey PRIMARY KEY (only_row),
  CONSTRAINT bookkeeping_has_one_row CHECK (only_row)
);

COMMENT ON TABLE postern.bookkeeping IS 'How far maintenance has come with postern.ledger and postern.source_hours.';
COMMENT ON COLUMN postern.bookkeeping.missing IS 'At the last check, without those that are too new to be missed.';
COMMENT ON COLUMN postern.bookkeeping.waiting IS 'At the last check: messages in both queues beyond those of stored events.';

-- What came before was not counted by the minute in which it was received. The hours are taken from the rows.
INSERT INTO postern.bookkeeping (ledger_begins, ledger_to, hours_to)
VALUES (date_trunc('minute', now()), date_trunc('minute', now()), date_trunc('hour', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '9 weeks');
