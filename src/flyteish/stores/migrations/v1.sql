-- Version 1, as it was: a row for each entry, no notes. Kept so that the way from it stays tested.

CREATE TABLE entries (
    run    TEXT    NOT NULL,
    number INTEGER NOT NULL, -- from 1, without gaps
    data   BLOB    NOT NULL, -- MessagePack: an Entry
    PRIMARY KEY (run, number)
);

CREATE TABLE runs (
    run          TEXT    NOT NULL PRIMARY KEY,
    task         TEXT    NOT NULL,
    queue        TEXT    NOT NULL,
    phase        TEXT    NOT NULL,
    submitted_at REAL    NOT NULL,
    ended_at     REAL,
    actions      INTEGER NOT NULL
);

CREATE TABLE commands (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    kind   TEXT NOT NULL,
    target TEXT NOT NULL,
    reason TEXT NOT NULL
);
