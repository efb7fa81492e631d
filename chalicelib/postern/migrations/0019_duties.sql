-- How maintenance's duties went: whoever asks for the status may read no logs.
CREATE TABLE postern.duties (
  name       text         NOT NULL,
  done_at    timestamptz,
  failed_at  timestamptz,
  reason     text,
  CONSTRAINT duties_pkey PRIMARY KEY (name)
);

COMMENT ON TABLE postern.duties IS 'What maintenance does, by name, and how each went the last time.';
COMMENT ON COLUMN postern.duties.reason IS 'Why it failed the last time; NULL when it was done.';
