-- The tables of version 2 that version 1 lacks. Entries are then gathered into segments, and their table
-- dropped, by schema.py.

CREATE TABLE segments (
    run   TEXT    NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    crc   INTEGER NOT NULL,
    data  BLOB    NOT NULL,
    PRIMARY KEY (run, first)
);

ALTER TABLE runs ADD COLUMN command TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN entry TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_by_age ON runs (submitted_at, run);
CREATE INDEX runs_not_ended ON runs (submitted_at, run) WHERE ended_at IS NULL;

CREATE TABLE notes (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
);
