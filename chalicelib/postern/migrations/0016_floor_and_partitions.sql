-- As in 0001. A time before 1970 was the highest of all, and one after the year 10889 a low one.
CREATE OR REPLACE FUNCTION postern.uuid7_floor(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (lpad(to_hex(
  least(greatest(floor(extract(epoch FROM at) * 1000), 0), 281474976710655)::bigint
), 12, '0') || '00000000000000000000')::uuid;

-- As in 0010. Where standard_conforming_strings was off while that ran, the pattern lost its backslashes, and the view
-- knew no partition's days.
CREATE OR REPLACE VIEW postern.partitions AS
SELECT parent.relname::text AS parent,
       part.relname::text AS name,
       postern.uuid7_time(bound[1]::uuid) AS since,
       postern.uuid7_time(bound[2]::uuid) AS until
FROM pg_catalog.pg_inherits AS inherits
JOIN pg_catalog.pg_class AS parent ON parent.oid = inherits.inhparent
JOIN pg_catalog.pg_class AS part ON part.oid = inherits.inhrelid
LEFT JOIN LATERAL regexp_match(
  pg_get_expr(part.relpartbound, part.oid), 'FROM \(''([0-9a-f-]{36})''\) TO \(''([0-9a-f-]{36})''\)'
) AS bound ON true
WHERE parent.relnamespace = 'postern'::regnamespace AND parent.relname IN ('events', 'attempts');
