"""Holds locks with the libraries of Python, as it is told on its standard input, one command a line, tab separated:

    take <library> <url> <kind> <key>   true or false: one try
    release                             ok

A connection belongs to one lock; the answer is one line.
"""

import sys
from urllib.parse import unquote, urlsplit


def key_of(kind, text):
    return {"text": lambda: text, "int": lambda: int(text), "bytes": lambda: bytes.fromhex(text)}[kind]()


class SqlAlchemy:
    def __init__(self, url, key):
        import sqlalchemy
        import sqlalchemy_dlock

        scheme, rest = url.split("://", 1)
        old = not hasattr(sqlalchemy_dlock, "create_async_sadlock") and sqlalchemy.__version__ < "2"
        driver = {"postgres": "postgresql+psycopg2" if old else "postgresql+psycopg"}.get(scheme, "mysql+pymysql")
        self.connection = sqlalchemy.create_engine(f"{driver}://{rest}").connect()
        make = getattr(sqlalchemy_dlock, "create_sadlock", None) or sqlalchemy_dlock.make_sa_dlock
        self.lock = make(self.connection, key)

    def take(self):
        return self.lock.acquire(block=False)

    def release(self):
        self.lock.release()
        self.connection.close()


class PyMySqlLock:
    def __init__(self, url, key):
        from PyMySQLLock import Locker

        parts = urlsplit(url)
        locker = Locker(
            host=parts.hostname,
            port=parts.port,
            user=unquote(parts.username),
            password=unquote(parts.password),
            database=parts.path.lstrip("/"),
        )
        self.lock = locker.lock(key)

    def take(self):
        return bool(self.lock.acquire(timeout=0))

    def release(self):
        self.lock.release()


LIBRARIES = {"sqlalchemy-dlock": SqlAlchemy, "py-mysql-lock": PyMySqlLock}


def main():
    held = None
    for line in sys.stdin:
        command, *arguments = line.rstrip("\n").split("\t")
        if command == "take":
            library, url, kind, key = arguments
            lock = LIBRARIES[library](url, key_of(kind, key))
            taken = lock.take()
            held = lock if taken else held
            print("true" if taken else "false", flush=True)
        elif command == "release":
            held.release()
            held = None
            print("ok", flush=True)
        else:
            raise SystemExit(f"unknown command {command!r}")


main()
