-- Apart from the column, whose lock would keep readers out for as long as this takes. Meanwhile nothing is written, and
-- what comes waits in the queue.
CREATE INDEX events_written_in ON postern.events (written_in, id);
