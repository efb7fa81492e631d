-- The order in which events were written, for those who read them as a stream (docs/stream.md): PostgreSQL numbers the
-- transactions that write, and those below the oldest one that is open have all ended.

-- Rows that are there keep '0', and are not written again: the default comes after.
ALTER TABLE postern.events ADD COLUMN written_in xid8 NOT NULL DEFAULT '0';
ALTER TABLE postern.events ALTER COLUMN written_in SET DEFAULT pg_current_xact_id();

COMMENT ON COLUMN postern.events.written_in IS
  'The transaction that wrote the row first; 0 for what is older than this column. Never changed.';
