-- Which deliveries are the same event, by what the provider says of it: its id where there is one, and the bytes only
-- where there is none, for a window. What was taken for a repetition is kept with all that lets it through afterwards.

ALTER TABLE postern.dedup_keys ADD COLUMN holds_until timestamptz;

COMMENT ON COLUMN postern.dedup_keys.claimed_at IS 'When the event that holds the key was received.';
COMMENT ON COLUMN postern.dedup_keys.holds_until IS
  'From when on another event may take the key over; NULL where it holds as long as it is kept.';

ALTER TABLE postern.events ADD COLUMN same_body_as uuid;

COMMENT ON COLUMN postern.events.same_body_as IS
  'An event of the same source that came before with the same bytes under another id, which nobody signed.';

ALTER TABLE postern.duplicates
  ADD COLUMN why text,
  ADD COLUMN type text,
  ADD COLUMN dedup_key text,
  ADD COLUMN headers jsonb,
  ADD COLUMN body bytea,
  ADD COLUMN format text,
  ADD COLUMN form_field text,
  ADD COLUMN request_id text,
  ADD COLUMN accepted_at timestamptz;

COMMENT ON COLUMN postern.duplicates.why IS
  'same_id, same_id_other_bytes or same_bytes; NULL for what came before this was kept.';
COMMENT ON COLUMN postern.duplicates.body IS 'The bytes that came, where they are others than the event''s.';
COMMENT ON COLUMN postern.duplicates.accepted_at IS 'When it became an event of its own, with its id, at a person''s word.';

CREATE INDEX duplicates_accepted ON postern.duplicates (id) WHERE accepted_at IS NOT NULL;
CREATE INDEX events_same_body ON postern.events (id) WHERE same_body_as IS NOT NULL;
CREATE INDEX duplicates_dedup_key ON postern.duplicates (dedup_key COLLATE "C");
CREATE INDEX events_dedup_key ON postern.events (dedup_key COLLATE "C");

-- Until now the bytes were claimed where the id stands in an unsigned header. What the provider sends once more from now
-- on is known by its id, and must be found under it: the claims of the bytes stay and tell which bytes came before. Who
-- sends an unsigned id repeats for three days at most; two weeks are read.
INSERT INTO postern.dedup_keys (source, key, event_id, claimed_at)
SELECT source, dedup_key, id, received_at
FROM postern.events
WHERE id >= postern.uuid7_floor(now() - interval '14 days')
ON CONFLICT (source, key) DO NOTHING;

-- And under what is their identity now, where that is more than it was.
INSERT INTO postern.dedup_keys (source, key, event_id, claimed_at)
SELECT event.source, known.key, event.id, event.received_at
FROM postern.events AS event
CROSS JOIN LATERAL (VALUES
  -- Bytes without an id, with the topic that stands in a header.
  (CASE WHEN event.dedup_key LIKE 'sha256:%' AND event.type <> 'unknown'
        THEN 'sha256:' || encode(sha256(convert_to(event.type || E'\n', 'UTF8') || event.body), 'hex') END),
  -- Shopify: the event, and its topic.
  (coalesce(event.headers ->> 'x-shopify-event-id', event.headers ->> 'x-shopify-webhook-id')
     || ':' || (event.headers ->> 'x-shopify-topic')),
  -- WooCommerce: the delivery, its topic and its bytes.
  ((event.headers ->> 'x-wc-webhook-delivery-id') || ':' || (event.headers ->> 'x-wc-webhook-topic')
     || ':sha256:' || encode(sha256(event.body), 'hex')),
  -- ClickUp: the change, and what it is announced as.
  (CASE WHEN event.payload ? 'history_items'
        THEN (event.payload #>> '{history_items,0,id}') || ':' || (event.payload ->> 'event') END)
) AS known (key)
WHERE known.key IS NOT NULL AND event.id >= postern.uuid7_floor(now() - interval '7 days')
ON CONFLICT (source, key) DO NOTHING;
