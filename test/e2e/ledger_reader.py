"""Reads a replica in a loop with Python's sqlite3, one connection kept open and one opened anew each time, until a file
says stop. Prints what it saw: the sums of two tables, which only whole commits keep equal and opposite, must be 0."""
import json
import os
import sqlite3
import sys

path, stop = sys.argv[1], sys.argv[2]
SUM = "SELECT (SELECT sum(amount) FROM debit) + (SELECT sum(amount) FROM credit)"
seen = {"reads": 0, "inconsistent": 0, "unsound": 0, "errors": [], "states": 0, "schemas": 0}


def connect():
    return sqlite3.connect(path, timeout=20, isolation_level=None)


def read(db):
    db.execute("BEGIN")
    try:
        first = db.execute(SUM).fetchone()[0]
        count = db.execute("SELECT count(*) FROM credit").fetchone()[0]
        again = db.execute(SUM + ", (SELECT count(*) FROM credit)").fetchone()
        if first != 0 or again != (0, count):
            seen["inconsistent"] += 1
        return count
    finally:
        db.execute("COMMIT")


kept = connect()
last = schema = None
while not os.path.exists(stop):
    try:
        state = read(kept)
        seen["states"] += state != last
        last = state
        version = kept.execute("PRAGMA schema_version").fetchone()[0]
        seen["schemas"] += version != schema
        schema = version
        fresh = connect()
        read(fresh)
        if seen["reads"] % 20 == 0 and fresh.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
            seen["unsound"] += 1
        fresh.close()
        seen["reads"] += 2
    except sqlite3.Error as error:
        seen["errors"].append(f"{type(error).__name__}: {error}")
        if len(seen["errors"]) > 20:
            break
print(json.dumps(seen))
