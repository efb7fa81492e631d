-- Deliveries that brought several events: each event has its own part as its body, and the whole is kept here, so
-- that its signature can be verified again.

CREATE TABLE postern.deliveries (
  id           uuid        NOT NULL,
  source       text        NOT NULL,
  received_at  timestamptz NOT NULL,
  headers      jsonb       NOT NULL,
  body         bytea       NOT NULL,
  CONSTRAINT deliveries_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE postern.deliveries IS 'The exact bytes of deliveries that brought several events.';
COMMENT ON COLUMN postern.deliveries.id IS 'The id of the first of its events.';

ALTER TABLE postern.events ADD COLUMN delivery_id uuid;

COMMENT ON COLUMN postern.events.delivery_id IS
  'The delivery in postern.deliveries that the event is a part of; NULL where it was all of it.';
