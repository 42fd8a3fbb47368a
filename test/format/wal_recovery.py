"""Makes WAL files with SQLite, and says what SQLite itself recovers from damaged ones.

make DIR SIZE...   for each page size: DIR/SIZE.db and DIR/SIZE.db-wal, copied while a transaction is spilling.
check DIR          reads `NAME cut LENGTH` and `NAME flip OFFSET MASK` from DIR/commands, applies each to
                   DIR/NAME.db-wal beside DIR/NAME.db, lets SQLite recover and checkpoint, and writes the SHA-256
                   of the database file, or `error`, to DIR/answers.
"""
import hashlib
import os
import shutil
import sqlite3
import sys


def make(directory, page_size):
    path = os.path.join(directory, "live.db")
    connection = sqlite3.connect(path, isolation_level=None)
    run = connection.execute
    run(f"PRAGMA page_size={page_size}")
    run("PRAGMA journal_mode=WAL")
    run("PRAGMA wal_autocheckpoint=0")
    run("PRAGMA synchronous=OFF")
    run("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
    blob = page_size * 2 // 3
    for _ in range(3):
        run("INSERT INTO t(v) VALUES (randomblob(?))", (blob,))
    for _ in range(11):
        run("UPDATE t SET v = randomblob(?) WHERE id = 3", (blob,))
    # The next commit starts the log again over these frames, whose tail stays behind as stale.
    run("PRAGMA wal_checkpoint(RESTART)")
    run("UPDATE t SET v = randomblob(?) WHERE id = 2", (blob,))
    run("INSERT INTO t(v) VALUES (randomblob(?))", (blob * 2,))
    run("DELETE FROM t WHERE id = 3")
    run("VACUUM")
    run("UPDATE t SET v = randomblob(?) WHERE id = 1", (blob,))
    run("PRAGMA cache_size=1")
    run("BEGIN")
    for row in (1, 2, 4):
        run("UPDATE t SET v = randomblob(?) WHERE id = ?", (blob, row))
    target = os.path.join(directory, f"{page_size}.db")
    shutil.copyfile(path, target)
    shutil.copyfile(path + "-wal", target + "-wal")
    run("ROLLBACK")
    connection.close()
    os.remove(path)


def recover(path):
    try:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA synchronous=OFF")
        # Reads page 1 and nothing behind it.
        connection.execute("PRAGMA schema_version").fetchall()
        # The last connection to close checkpoints whatever was recovered.
        connection.close()
    except sqlite3.Error:
        return "error"
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def check(directory):
    path = os.path.join(directory, "check.db")
    loaded = {}
    commands = open(os.path.join(directory, "commands")).read().splitlines()
    answers = []
    for line in commands:
        name, kind, *numbers = line.split()
        if name not in loaded:
            source = os.path.join(directory, f"{name}.db")
            loaded[name] = (open(source, "rb").read(), open(source + "-wal", "rb").read())
        database, wal = loaded[name]
        if kind == "cut":
            wal = wal[: int(numbers[0])]
        else:
            wal = bytearray(wal)
            wal[int(numbers[0])] ^= int(numbers[1])
        for suffix, content in (("", database), ("-wal", wal)):
            with open(path + suffix, "wb") as file:
                file.write(content)
        answers.append(recover(path))
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(path + suffix):
                os.remove(path + suffix)
    with open(os.path.join(directory, "answers"), "w") as file:
        file.write("\n".join(answers))


if sys.argv[1] == "make":
    for size in sys.argv[3:]:
        make(sys.argv[2], int(size))
else:
    check(sys.argv[2])
