-- Each try at processing an event, the issues that failed ones are grouped into, and how far each entity has come.

-- NOT VALID: what is there has met the narrower rule, and to read it all again would lock the table for as long.
ALTER TABLE postern.events
  DROP CONSTRAINT events_status_is_known,
  DROP CONSTRAINT events_processed_has_a_time,
  DROP CONSTRAINT events_unprocessed_has_an_error;
ALTER TABLE postern.events
  ADD CONSTRAINT events_status_is_known
    CHECK (status IN ('processed', 'stale', 'failed', 'dead')) NOT VALID,
  ADD CONSTRAINT events_processed_has_a_time
    CHECK ((status IN ('processed', 'stale')) = (processed_at IS NOT NULL)) NOT VALID,
  ADD CONSTRAINT events_unprocessed_has_an_error
    CHECK ((status IN ('processed', 'stale')) = (error IS NULL)) NOT VALID;

ALTER TABLE postern.events ADD COLUMN format text, ADD COLUMN form_field text;

COMMENT ON COLUMN postern.events.format IS
  'How the body is read: json, form or bytes; NULL for events from before it was kept.';
COMMENT ON COLUMN postern.events.form_field IS 'The field of the form that holds the JSON; NULL where none does.';

CREATE TABLE postern.attempts (
  event_id     uuid        NOT NULL,
  number       integer     NOT NULL,
  started_at   timestamptz NOT NULL,
  duration_ms  real        NOT NULL,
  trigger      text        NOT NULL,
  outcome      text        NOT NULL,
  handler      text,
  error_class  text,
  message      text,
  traceback    text,
  issue_id     text,
  replay_id    uuid,
  CONSTRAINT attempts_pkey PRIMARY KEY (event_id, number),
  CONSTRAINT attempts_trigger_is_known CHECK (trigger IN ('first', 'retry', 'redrive', 'replay', 'bulk')),
  CONSTRAINT attempts_outcome_is_known CHECK (outcome IN ('processed', 'stale', 'failed', 'dead')),
  CONSTRAINT attempts_failed_has_an_issue CHECK ((outcome IN ('failed', 'dead')) = (issue_id IS NOT NULL))
) PARTITION BY RANGE (event_id);

CREATE INDEX attempts_issue ON postern.attempts (issue_id, event_id) WHERE issue_id IS NOT NULL;

COMMENT ON TABLE postern.attempts IS 'One row a try at processing an event, committed with what it did.';
COMMENT ON COLUMN postern.attempts.number IS 'Counts the tries at this event, from 1.';
COMMENT ON COLUMN postern.attempts.handler IS 'The handler that failed; NULL where none did.';
COMMENT ON COLUMN postern.attempts.replay_id IS 'The replay in postern.replays that asked for it; NULL where none did.';

CREATE TABLE postern.attempts_default PARTITION OF postern.attempts DEFAULT;

CREATE TABLE postern.issues (
  id                text        NOT NULL,
  handler           text        NOT NULL,
  error_class       text        NOT NULL,
  message           text        NOT NULL,
  state             text        NOT NULL DEFAULT 'open',
  count             bigint      NOT NULL,
  first_seen        timestamptz NOT NULL,
  last_seen         timestamptz NOT NULL,
  first_event       uuid        NOT NULL,
  last_event        uuid        NOT NULL,
  state_changed_at  timestamptz,
  CONSTRAINT issues_pkey PRIMARY KEY (id),
  CONSTRAINT issues_state_is_known CHECK (state IN ('open', 'acknowledged', 'resolved'))
);

COMMENT ON TABLE postern.issues IS 'Failed attempts, grouped by handler and error.';
COMMENT ON COLUMN postern.issues.id IS 'A fingerprint of the handler, the kind of error and the line that it came from.';
COMMENT ON COLUMN postern.issues.message IS 'The latest one''s.';
COMMENT ON COLUMN postern.issues.state IS 'A resolved issue that is seen again is open again.';

CREATE TABLE postern.entities (
  source    text        NOT NULL,
  entity    text        NOT NULL,
  version   numeric     NOT NULL,
  event_id  uuid        NOT NULL,
  at        timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT entities_pkey PRIMARY KEY (source, entity)
);

COMMENT ON TABLE postern.entities IS
  'The newest version of each entity that handlers with `version` have taken; an older one that comes later is stale.';
COMMENT ON COLUMN postern.entities.version IS 'A number, or a time as seconds since 1970.';
