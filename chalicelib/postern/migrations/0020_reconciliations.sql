-- What a provider's own history has and we have not (docs/reconcile.md).

ALTER TABLE postern.events ADD COLUMN origin text;

COMMENT ON COLUMN postern.events.origin IS
  'How it came, where its sender did not bring it: `reconciled`, from its provider''s history. NULL where it did.';

ALTER TABLE postern.duplicates ADD COLUMN origin text;

CREATE TABLE postern.reconciliations (
  id          uuid        NOT NULL,
  source      text        NOT NULL,
  since       timestamptz NOT NULL,
  only_looks  boolean     NOT NULL,
  hourly      boolean     NOT NULL,
  state       text        NOT NULL DEFAULT 'listing',
  cursor      text,
  listed      bigint      NOT NULL DEFAULT 0,
  missing     bigint      NOT NULL DEFAULT 0,
  refused     bigint      NOT NULL DEFAULT 0,
  dead        bigint      NOT NULL DEFAULT 0,
  fetched     bigint      NOT NULL DEFAULT 0,
  arrived     bigint      NOT NULL DEFAULT 0,
  no_event    bigint      NOT NULL DEFAULT 0,
  failed      bigint      NOT NULL DEFAULT 0,
  error       text,
  started_at  timestamptz NOT NULL DEFAULT now(),
  changed_at  timestamptz NOT NULL DEFAULT now(),
  ended_at    timestamptz,
  CONSTRAINT reconciliations_pkey PRIMARY KEY (id),
  CONSTRAINT reconciliations_state CHECK (state IN ('listing', 'fetching', 'done', 'failed', 'cancelled'))
);

-- One at a time of each source: whoever begins a second one goes on with the first.
CREATE UNIQUE INDEX reconciliations_running ON postern.reconciliations (source) WHERE state IN ('listing', 'fetching');

COMMENT ON TABLE postern.reconciliations IS 'Comparisons of a source''s events with its provider''s own history.';
COMMENT ON COLUMN postern.reconciliations.hourly IS 'By the clock: the next such one joins it.';
COMMENT ON COLUMN postern.reconciliations.cursor IS 'Where the provider''s next page begins, in its words.';
COMMENT ON COLUMN postern.reconciliations.listed IS 'Deliveries or events that the provider has listed so far.';

CREATE TABLE postern.gaps (
  source       text        NOT NULL,
  key          text        NOT NULL,
  kind         text        NOT NULL,
  happened_at  timestamptz NOT NULL,
  type         text,
  handle       text        NOT NULL,
  found_by     uuid        NOT NULL,
  found_at     timestamptz NOT NULL DEFAULT now(),
  state        text        NOT NULL DEFAULT 'open',
  tries        integer     NOT NULL DEFAULT 0,
  changed_at   timestamptz NOT NULL DEFAULT now(),
  event_id     uuid,
  rejected_id  uuid,
  note         text,
  CONSTRAINT gaps_pkey PRIMARY KEY (source, key),
  CONSTRAINT gaps_kind CHECK (kind IN ('missing', 'refused', 'dead')),
  CONSTRAINT gaps_state CHECK (state IN ('open', 'fetched', 'arrived', 'no_event', 'failed'))
);
CREATE INDEX gaps_found_by ON postern.gaps (found_by, state, happened_at);

COMMENT ON TABLE postern.gaps IS 'What a provider says that it sent, and that is no event here, or a dead one.';
COMMENT ON COLUMN postern.gaps.key IS 'The dedup key that it has, or would have.';
COMMENT ON COLUMN postern.gaps.handle IS 'What its provider gives it out for.';
COMMENT ON COLUMN postern.gaps.state IS
  '`open`; `fetched` from the provider and accepted; `arrived` by itself meanwhile; `no_event`: a handshake; `failed`: see `note`.';
