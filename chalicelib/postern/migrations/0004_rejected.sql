-- What was refused and kept to be explained, apart from the events and never handed to handlers; and with which of a
-- source's secrets each event was verified, so that it is known when one of them is used no more.

CREATE TABLE postern.rejected (
  id           uuid        NOT NULL,
  source       text        NOT NULL,
  received_at  timestamptz NOT NULL,
  reason       text        NOT NULL,
  method       text        NOT NULL,
  url          text        NOT NULL,
  query        jsonb       NOT NULL,
  headers      jsonb       NOT NULL,
  body         bytea       NOT NULL,
  request_id   text,
  event_id     uuid,
  CONSTRAINT rejected_pkey PRIMARY KEY (id)
);
CREATE INDEX rejected_source_id ON postern.rejected (source, id);

COMMENT ON TABLE postern.rejected IS
  'Deliveries that were refused, of sources with `quarantine`: a few of them. Nobody vouches for what they say.';
COMMENT ON COLUMN postern.rejected.event_id IS 'The event that it became when it was verified again; NULL until then.';

ALTER TABLE postern.events ADD COLUMN secret text;

COMMENT ON COLUMN postern.events.secret IS
  'Which of the source''s secrets verified it: a fingerprint. NULL where there was none.';
