-- Each source's hours.

-- name: count_hours
-- A gap that reaches back before these hours began at the last minute that is known of.
INSERT INTO postern.source_hours AS known (source, hour, events, active_minutes, longest_gap, last_minute)
SELECT source, date_trunc('hour', minute AT TIME ZONE 'UTC') AT TIME ZONE 'UTC',
       sum(number), count(*), max(gap), max(minute)
FROM (
  SELECT source, minute, number,
         extract(epoch FROM minute - lag(minute, 1, before.last_minute) OVER (PARTITION BY source ORDER BY minute)) / 60
           AS gap
  FROM (
    SELECT source, date_trunc('minute', received_at) AS minute, count(*) AS number
    FROM (
      SELECT source, received_at FROM postern.events
      WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s)
      UNION ALL
      SELECT source, received_at FROM postern.duplicates
      WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(until)s)
    ) AS came
    GROUP BY 1, 2
  ) AS minutes
  LEFT JOIN LATERAL (
    SELECT last_minute FROM postern.source_hours
    WHERE source_hours.source = minutes.source AND hour < %(since)s
    ORDER BY hour DESC LIMIT 1
  ) AS before ON true
) AS gaps
GROUP BY 1, 2
ON CONFLICT (source, hour) DO UPDATE
SET events = excluded.events, active_minutes = excluded.active_minutes, longest_gap = excluded.longest_gap,
    last_minute = excluded.last_minute
WHERE known.events < excluded.events

-- name: hours_known_to
SELECT hours_to FROM postern.bookkeeping

-- name: hours_have_come_to
UPDATE postern.bookkeeping SET hours_to = greatest(hours_to, %(until)s)

-- name: drop_hours
DELETE FROM postern.source_hours WHERE hour < %(before)s

-- name: last_minutes
WITH recent AS (
  SELECT source, max(received_at) AS last FROM postern.events
  WHERE id >= postern.uuid7_floor(%(since)s) GROUP BY source
  UNION ALL
  SELECT source, max(received_at) FROM postern.duplicates
  WHERE id >= postern.uuid7_floor(%(since)s) GROUP BY source
)
SELECT wanted.source,
       greatest(
         (SELECT max(minute) FROM postern.ledger WHERE ledger.source = wanted.source),
         (SELECT last_minute FROM postern.source_hours WHERE source_hours.source = wanted.source
          ORDER BY hour DESC LIMIT 1),
         (SELECT max(last) FROM recent WHERE recent.source = wanted.source)
       ) AS last_seen
FROM unnest(%(sources)s::text[]) AS wanted (source)

-- name: hours_of
SELECT source, hour, active_minutes, longest_gap
FROM postern.source_hours
WHERE source = ANY (%(sources)s::text[])
ORDER BY source, hour
