-- Version 2, as it was: runs without their costs. Kept so that the way from it stays tested.

-- The journal. One row holds what one burst had for one run (at most about 256 KiB of it), so that the
-- cost of a row is shared by all its entries. Not WITHOUT ROWID: rows may be large.
CREATE TABLE segments (
    run   TEXT    NOT NULL,
    first INTEGER NOT NULL, -- number of the row's first entry; a run's entries are numbered from 1, without gaps
    count INTEGER NOT NULL,
    crc   INTEGER NOT NULL, -- CRC-32 of data: SQLite notices damaged pages of its own, not damaged contents
    data  BLOB    NOT NULL, -- MessagePack: a list of Entry
    PRIMARY KEY (run, first)
);

-- Runs at a glance; the order of the columns is that of the fields of RunRow.
CREATE TABLE runs (
    run          TEXT    NOT NULL PRIMARY KEY,
    task         TEXT    NOT NULL,
    queue        TEXT    NOT NULL,
    phase        TEXT    NOT NULL,
    submitted_at REAL    NOT NULL, -- seconds since the epoch
    ended_at     REAL,
    actions      INTEGER NOT NULL,
    command      TEXT    NOT NULL,
    entry        TEXT    NOT NULL
);
CREATE INDEX runs_by_age ON runs (submitted_at, run);
CREATE INDEX runs_not_ended ON runs (submitted_at, run) WHERE ended_at IS NULL;

-- What other processes ask of the controller. AUTOINCREMENT, because an id that was taken must never come again.
CREATE TABLE commands (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    kind   TEXT NOT NULL,
    target TEXT NOT NULL,
    reason TEXT NOT NULL
);

CREATE TABLE notes (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
);
