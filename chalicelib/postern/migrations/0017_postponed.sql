-- What a handler has put off (RetryLater), until it is done or given up.
CREATE TABLE postern.postponed (
  try_id        uuid         NOT NULL,
  event_id      uuid         NOT NULL,
  source        text         NOT NULL,
  type          text         NOT NULL,
  handler       text         NOT NULL,
  reason        text         NOT NULL,
  times         integer      NOT NULL DEFAULT 1,
  waited        integer      NOT NULL,
  first_at      timestamptz  NOT NULL DEFAULT now(),
  last_at       timestamptz  NOT NULL DEFAULT now(),
  again_at      timestamptz  NOT NULL,
  receives      integer      NOT NULL DEFAULT 1,
  last_receive  integer      NOT NULL,
  CONSTRAINT postponed_pkey PRIMARY KEY (try_id)
);

CREATE INDEX postponed_event ON postern.postponed (event_id);
CREATE INDEX postponed_again ON postern.postponed (again_at);

COMMENT ON TABLE postern.postponed IS
  'Events that a handler wants later. Most have no row in postern.events yet: their messages wait in the queue.';
COMMENT ON COLUMN postern.postponed.try_id IS 'The event; of a replay, what makes it another try than the event''s own.';
COMMENT ON COLUMN postern.postponed.handler IS 'The one that asked for it last.';
COMMENT ON COLUMN postern.postponed.waited IS 'Seconds for which it was put off in all.';
COMMENT ON COLUMN postern.postponed.receives IS 'On how many receives of its present message it was put off.';
COMMENT ON COLUMN postern.postponed.last_receive IS 'Which receive of it that was the last time.';
COMMENT ON COLUMN postern.postponed.again_at IS 'When its message comes again, about.';
