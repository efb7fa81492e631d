-- What people asked to be done again: replays of stored events, and redrives of dead letters.

CREATE TABLE postern.replays (
  id           uuid        NOT NULL,
  kind         text        NOT NULL,
  trigger      text        NOT NULL,
  filter       jsonb       NOT NULL,
  total        integer     NOT NULL,
  moved        integer     NOT NULL DEFAULT 0,
  rate         integer     NOT NULL,
  state        text        NOT NULL DEFAULT 'running',
  created_at   timestamptz NOT NULL DEFAULT now(),
  advanced_at  timestamptz NOT NULL DEFAULT now(),
  finished_at  timestamptz,
  CONSTRAINT replays_pkey PRIMARY KEY (id),
  CONSTRAINT replays_kind_is_known CHECK (kind IN ('replay', 'redrive')),
  CONSTRAINT replays_trigger_is_known CHECK (trigger IN ('replay', 'bulk', 'redrive')),
  CONSTRAINT replays_state_is_known CHECK (state IN ('running', 'cancelled', 'done')),
  CONSTRAINT replays_running_has_no_end CHECK ((state = 'running') = (finished_at IS NULL))
);

-- One bulk at a time: two would be twice the rate, and what one did to an event would depend on the other.
CREATE UNIQUE INDEX replays_one_bulk_runs ON postern.replays (kind) WHERE state = 'running' AND trigger <> 'replay';

COMMENT ON TABLE postern.replays IS 'Replays of stored events and redrives of dead letters, each with its progress.';
COMMENT ON COLUMN postern.replays.filter IS 'What was asked for.';
COMMENT ON COLUMN postern.replays.total IS 'How many events it is; of a redrive, how many at most.';
COMMENT ON COLUMN postern.replays.moved IS 'How many were put on the queue.';
COMMENT ON COLUMN postern.replays.rate IS 'How many a second are put on the queue, at most.';

CREATE TABLE postern.replay_items (
  replay_id   uuid        NOT NULL,
  event_id    uuid        NOT NULL,
  state       text        NOT NULL DEFAULT 'waiting',
  tries       integer     NOT NULL DEFAULT 0,
  error       text,
  changed_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT replay_items_pkey PRIMARY KEY (replay_id, event_id),
  CONSTRAINT replay_items_replay FOREIGN KEY (replay_id) REFERENCES postern.replays (id) ON DELETE CASCADE,
  CONSTRAINT replay_items_state_is_known
    CHECK (state IN ('waiting', 'queued', 'processed', 'stale', 'failed', 'gone', 'cancelled'))
);
CREATE INDEX replay_items_unsettled ON postern.replay_items (replay_id, state, event_id)
  WHERE state IN ('waiting', 'queued');

COMMENT ON TABLE postern.replay_items IS 'The events of a replay, and what became of each.';
COMMENT ON COLUMN postern.replay_items.state IS
  'waiting (not on the queue yet), queued, processed, stale, failed, gone (dropped before its turn), cancelled.';
