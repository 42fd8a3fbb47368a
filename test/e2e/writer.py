"""The same application as writer.ts with Python's sqlite3 and its defaults: implicit BEGIN, timeout 5 s. See workload.ts."""
import argparse
import hashlib
import json
import os
import sqlite3
import time

parser = argparse.ArgumentParser()
for name, default in {
    "db": None, "log": None, "seconds": "3600", "commits": "1000000000", "pace-ms": "0", "pause-every": "0",
    "pause-ms": "0", "autocheckpoint": "1000", "busy-timeout": "default", "synchronous": "NORMAL",
    "page-size": "4096", "seed": "walrust", "cycle": "2000", "bulk": "1000",
}.items():
    parser.add_argument("--" + name, default=default)
flags = {name.replace("_", "-"): value for name, value in vars(parser.parse_args()).items()}
seed, cycle, bulk = flags["seed"], int(flags["cycle"]), int(flags["bulk"])
log_file = os.open(flags["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
stop_file = flags["log"] + ".stop"
busy = 0
vacuums = 0
slowest_ms = 0

SCHEMA = [
    "CREATE TABLE counter(one INTEGER PRIMARY KEY CHECK (one = 1), n INTEGER NOT NULL, session INTEGER NOT NULL)",
    "CREATE TABLE session(id INTEGER PRIMARY KEY, origin INTEGER NOT NULL)",
    "CREATE TABLE item(id INTEGER PRIMARY KEY, session INTEGER NOT NULL, payload TEXT NOT NULL, sum TEXT NOT NULL)",
    "CREATE INDEX item_sum ON item(sum)",
    "CREATE TABLE hot(slot INTEGER PRIMARY KEY, n INTEGER NOT NULL, payload TEXT NOT NULL, sum TEXT NOT NULL)",
    "CREATE TABLE bulk(id INTEGER PRIMARY KEY, payload TEXT NOT NULL, sum TEXT NOT NULL)",
    "INSERT INTO counter(one, n, session) VALUES (1, 0, 0)",
]


def now_ms():
    return time.time_ns() // 1_000_000


def log(line):
    os.write(log_file, (line + "\n").encode())


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def sum_of(number, payload):
    return sha(f"{number}:{payload}")[:16]


def stretch(text, length):
    unit = sha(text)
    return (unit * (length // len(unit) + 1))[:length]


def insist(db, work):
    global busy
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            db.rollback()
            if "locked" not in str(error) and "busy" not in str(error):
                raise
            busy += 1
            log(f"e {now_ms()} {error}")
            time.sleep(0.001)


def statements(db, n, session):
    payload = stretch(f"{seed}:item:{n}", 13000 if n % 50 == 0 else 40 + (n * 37) % 300)
    db.execute("INSERT INTO item(id, session, payload, sum) VALUES (?, ?, ?, ?)", (n, session, payload, sum_of(n, payload)))
    if n > 100 and (n - 100) % 4 != 0:
        db.execute("DELETE FROM item WHERE id = ?", (n - 100,))
    hot = stretch(f"{seed}:hot:{n}", 60 + (n * 13) % 200)
    db.execute("INSERT OR REPLACE INTO hot(slot, n, payload, sum) VALUES (?, ?, ?, ?)", (n % 64, n, hot, sum_of(n, hot)))
    if n % cycle == cycle // 4:
        for k in range(n * 10000, n * 10000 + bulk):
            row = stretch(f"{seed}:bulk:{k}", 700)
            db.execute("INSERT INTO bulk(id, payload, sum) VALUES (?, ?, ?)", (k, row, sum_of(k, row)))
    if n % cycle == cycle // 2:
        db.execute("DELETE FROM bulk")
        db.execute("DELETE FROM item WHERE id < ?", (n - 50,))
    db.execute("UPDATE counter SET n = ?, session = ?", (n, session))
    db.commit()


def commit(db, n, session):
    global vacuums, slowest_ms
    began = now_ms()
    log(f"b {n} {session} {began}")
    insist(db, lambda: statements(db, n, session))
    acked = now_ms()
    log(f"a {n} {session} {acked}")
    slowest_ms = max(slowest_ms, acked - began)
    if n > 1 and (n - 1) % cycle == cycle // 2:
        insist(db, lambda: db.execute("VACUUM"))
        vacuums += 1


def setup(db):
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'counter'").fetchone() is None:
        db.execute("BEGIN IMMEDIATE")
        for sql in SCHEMA:
            db.execute(sql)
    db.commit()


def start_session(db, session, origin):
    db.execute("INSERT INTO session(id, origin) VALUES (?, ?)", (session, origin))
    db.commit()


def main():
    timeout = {} if flags["busy-timeout"] == "default" else {"timeout": int(flags["busy-timeout"]) / 1000}
    db = sqlite3.connect(flags["db"], **timeout)

    def pragmas():
        db.execute(f"PRAGMA page_size = {int(flags['page-size'])}")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute(f"PRAGMA synchronous = {flags['synchronous']}")
        db.execute(f"PRAGMA wal_autocheckpoint = {int(flags['autocheckpoint'])}").fetchall()

    insist(db, pragmas)
    insist(db, lambda: setup(db))
    origin = n = db.execute("SELECT n FROM counter").fetchone()[0]
    session = db.execute("SELECT coalesce(max(id), 0) + 1 FROM session").fetchone()[0]
    log(f"w {seed} {cycle} {bulk}")
    log(f"s {session} {n} {now_ms()}")
    insist(db, lambda: start_session(db, session, n))
    end = time.time() + float(flags["seconds"])
    pace, every = int(flags["pace-ms"]), int(flags["pause-every"])
    last = origin + int(flags["commits"])
    while n < last and time.time() < end:
        n += 1
        commit(db, n, session)
        if pace:
            time.sleep(pace / 1000)
        if every and n % every == 0:
            time.sleep(int(flags["pause-ms"]) / 1000)
        if (pace or n % 16 == 0) and os.path.exists(stop_file):
            break
    db.close()
    print(json.dumps({"n": n, "session": session, "commits": n - origin, "busy": busy, "vacuums": vacuums, "slowestMs": slowest_ms}))


main()
