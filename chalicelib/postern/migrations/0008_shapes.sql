-- The shape of each type of events, as it is learned from them, and what departed from it.

CREATE TABLE postern.shapes (
  source     text        NOT NULL,
  type       text        NOT NULL,
  shape      jsonb,
  events     bigint      NOT NULL DEFAULT 0,
  last_id    uuid,
  looked_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT shapes_pkey PRIMARY KEY (source, type),
  CONSTRAINT shapes_events_count_from_zero CHECK (events >= 0)
);

COMMENT ON TABLE postern.shapes IS 'The paths and JSON types that the payloads of each type of events have.';
COMMENT ON COLUMN postern.shapes.shape IS 'Postern''s own (chalicelib/shapes.py); NULL before it was first looked at.';
COMMENT ON COLUMN postern.shapes.events IS 'How many events it was learned from.';
COMMENT ON COLUMN postern.shapes.last_id IS 'The newest event that was looked at.';

CREATE TABLE postern.drift (
  id           bigint      GENERATED ALWAYS AS IDENTITY,
  source       text        NOT NULL,
  type         text        NOT NULL,
  kind         text        NOT NULL,
  path         text        NOT NULL,
  was          text[]      NOT NULL,
  became       text[]      NOT NULL,
  event_id     uuid        NOT NULL,
  found_at     timestamptz NOT NULL DEFAULT now(),
  accepted_at  timestamptz,
  CONSTRAINT drift_pkey PRIMARY KEY (id),
  CONSTRAINT drift_is_reported_once UNIQUE (source, type, kind, path, became),
  CONSTRAINT drift_kind_is_known CHECK (kind IN ('new', 'missing', 'retyped'))
);

COMMENT ON TABLE postern.drift IS 'What departed from the shape of a type of events, each once.';
COMMENT ON COLUMN postern.drift.event_id IS 'The first event that had, or lacked, it.';
COMMENT ON COLUMN postern.drift.was IS 'JSON types before; none where there was nothing.';
COMMENT ON COLUMN postern.drift.became IS 'JSON types that came; none where nothing came.';
COMMENT ON COLUMN postern.drift.accepted_at IS 'When somebody said that it is known; NULL until then.';
