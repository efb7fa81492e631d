-- The way from API Gateway's access log to an event. New partitions take their columns from the parent.

ALTER TABLE postern.events ADD COLUMN request_id text;

COMMENT ON COLUMN postern.events.request_id IS
  'API Gateway''s id of the request that brought the event; NULL where there was none.';
