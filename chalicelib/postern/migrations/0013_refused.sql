-- What was verified and then refused (no JSON, no fit for its schema) is kept, whatever the source says: who signs is no
-- stranger. And what a person decided about a delivery is said in its row.

ALTER TABLE postern.rejected
  ADD COLUMN verified boolean NOT NULL DEFAULT false,
  ADD COLUMN signed_id text,
  ADD COLUMN note text;

COMMENT ON TABLE postern.rejected IS
  'Deliveries that were refused: those that were verified, and of sources with `quarantine` a few others.';
COMMENT ON COLUMN postern.rejected.verified IS 'Its signature was right when it came; otherwise nobody vouches for it.';
COMMENT ON COLUMN postern.rejected.signed_id IS 'The id that its signature held.';
COMMENT ON COLUMN postern.rejected.note IS 'What there was to say when it was let through.';
