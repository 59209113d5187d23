"""Measures the lock libraries of Python against two `SELECT 1` of their own driver.

usage: peers.py URL SERVER ROUNDS

Prints the lines of the table as JSON. Rounds are interleaved; each is the median of its operations, as in the rest of
the benchmark. What a library does not support on a server, or fails at, is told on the standard error and left out.
"""

import json
import statistics
import sys
import time
import urllib.parse

SLICE = 0.03


def typical(operation, count):
    """Seconds for one operation: the median of so many."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        operation()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def fitting(operation):
    start = time.perf_counter()
    operation()
    operation()
    each = (time.perf_counter() - start) / 2
    return max(3, min(500, int(SLICE / each)))


def spread(values):
    values = sorted(values)

    def at(quarter):
        return values[((len(values) - 1) * quarter + 2) // 4]

    return {
        "low": at(1),
        "median": at(2),
        "high": at(3),
        "worst": at(4),
        "rounds": len(values),
    }


def working(contenders):
    """Those that work on this server, with how often they fit into a slice."""
    for name, operation, floor in contenders:
        try:
            yield name, operation, floor, fitting(operation)
        except Exception as error:  # whatever the libraries raise
            print(f"left out: {name}: {type(error).__name__}: {error}", file=sys.stderr)


def measure(contenders, server, rounds):
    running = list(working(contenders))
    times = {name: [] for name, *_ in running}
    for _ in range(rounds):
        for name, operation, _, count in running:
            times[name].append(typical(operation, count))
    for name, _, floor, _ in running:
        entry = {
            "row": "python",
            "server": server,
            "who": name,
            "measured": spread(seconds * 1e6 for seconds in times[name]),
            "unit": "µs",
            "against": floor,
            "ratio": None,
            "target": None,
            "connections": None,
            "statements": None,
            "round_trips": None,
        }
        if floor is not None:
            pairs = zip(times[name], times[floor])
            entry["ratio"] = spread(mine / its for mine, its in pairs)
        yield entry


def sqlalchemy_contenders(url):
    import sqlalchemy
    from sqlalchemy_dlock import create_sadlock

    dialect = "postgresql+psycopg" if url.scheme == "postgres" else "mysql+pymysql"
    engine = sqlalchemy.create_engine(url._replace(scheme=dialect).geturl())
    kept = engine.connect()
    if url.scheme == "postgres":
        kept = kept.execution_options(isolation_level="AUTOCOMMIT")
    raw = kept.connection.cursor()
    lock = create_sadlock(kept, "bench/python")

    def floor():
        for _ in range(2):
            raw.execute("SELECT 1")
            raw.fetchone()

    def reused():
        lock.acquire()
        lock.release()

    def pooled():
        with engine.connect() as connection:
            with create_sadlock(connection, "bench/python-pooled"):
                pass

    base = f"two SELECT 1 of {dialect.split('+')[1]}"
    return [
        (base, floor, None),
        ("sqlalchemy-dlock, reused", reused, base),
        ("sqlalchemy-dlock, pooled `with`", pooled, base),
    ], base


def mysql_lock_contenders(url, base):
    from PyMySQLLock import Locker

    locker = Locker(
        host=url.hostname,
        port=url.port,
        user=url.username,
        password=urllib.parse.unquote(url.password),
        database=url.path.strip("/"),
    )

    def run():
        lock = locker.lock("bench/python-mysql-lock")
        if not lock.acquire(timeout=10):
            raise RuntimeError("not acquired")
        lock.release()

    return [("PyMySQLLock", run, base)]


def django_contenders(url, base):
    import django
    from django.conf import settings

    engine = "postgresql" if url.scheme == "postgres" else "mysql"
    if engine == "mysql":
        import pymysql

        pymysql.install_as_MySQLdb()
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": f"django.db.backends.{engine}",
                "HOST": url.hostname,
                "PORT": url.port,
                "USER": url.username,
                "PASSWORD": urllib.parse.unquote(url.password),
                "NAME": url.path.strip("/"),
            }
        },
        INSTALLED_APPS=["database_locks"],
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        USE_TZ=True,
    )
    django.setup()
    from database_locks import lock
    from django.core.management import call_command

    call_command("migrate", verbosity=0)

    def run():
        with lock("bench/python-django", auto_renew=False):
            pass

    return [("django-database-locks, no renewal", run, base)]


def main():
    text, server, rounds = sys.argv[1:]
    url = urllib.parse.urlsplit(text)
    if url.scheme == "postgresql":
        url = url._replace(scheme="postgres")
    contenders, base = sqlalchemy_contenders(url)
    others = [django_contenders]
    if url.scheme != "postgres":
        others.insert(0, mysql_lock_contenders)
    for other in others:
        try:
            contenders += other(url, base)
        except Exception as error:  # whatever the libraries raise
            print(
                f"left out: {other.__name__}: {type(error).__name__}: {error}",
                file=sys.stderr,
            )
    json.dump(list(measure(contenders, server, int(rounds))), sys.stdout)


if __name__ == "__main__":
    main()
