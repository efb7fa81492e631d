-- The order in which events were written, for those who read them as a stream (docs/stream.md). Of all statements that
-- write, the transactions below the oldest one that is still open have ended: what they wrote is there, and nothing
-- comes before it any more.

-- Rows that are there keep '0', and are not written again: the default comes after.
ALTER TABLE postern.events ADD COLUMN written_in xid8 NOT NULL DEFAULT '0';
ALTER TABLE postern.events ALTER COLUMN written_in SET DEFAULT pg_current_xact_id();

CREATE INDEX events_written_in ON postern.events (written_in, id);

COMMENT ON COLUMN postern.events.written_in IS
  'The transaction that wrote the row first; 0 for what is older than this column. Never changed.';
