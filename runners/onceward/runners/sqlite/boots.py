"""The lease clock starts anew with each boot of the machine; leases of earlier boots are over."""

from __future__ import annotations

from onceward.contracts.clock import Clock
from onceward.runners.sqlite.database import Database

# The boot in which the file was opened last.   Result: (boot), or no row.
BOOT = "SELECT boot FROM boots WHERE one = 1"

# Remember the boot.   Params: boot.
REMEMBER = "INSERT INTO boots (one, boot) VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET boot = excluded.boot"

# All leases that end have lapsed, of every namespace.   ``until`` 0 is before any moment of the lease clock.
LAPSE_RUNS = "UPDATE runs SET until = 0 WHERE status = 'running' AND until IS NOT NULL"
LAPSE_LOCKS = "UPDATE locks SET until = 0 WHERE held = 1"

# The same for leases that were given later than now, which is what an earlier boot looks like.   Params: elapsed.
LAPSE_FUTURE_RUNS = f"{LAPSE_RUNS} AND until - lease_ms > ?"
LAPSE_FUTURE_LOCKS = f"{LAPSE_LOCKS} AND until - lease_ms > ?"


def notice(database: Database, boot: str, clock: Clock) -> None:
    """Leases of an earlier boot have lapsed, in one transaction.

    Where the system does not name its boots (``boot`` is empty), a lease from the future is taken for one of an
    earlier boot. One that is not lapses when its time has come: late, but nobody is admitted twice.
    """
    if boot and _remembered(database) == boot:
        return
    with database.write() as connection:
        if not boot:
            elapsed = clock.elapsed_ms()
            connection.execute(LAPSE_FUTURE_RUNS, (elapsed,))
            connection.execute(LAPSE_FUTURE_LOCKS, (elapsed,))
            return
        row = connection.execute(BOOT).fetchone()
        if row is not None and row[0] == boot:
            return  # another process was faster
        if row is not None:
            connection.execute(LAPSE_RUNS)
            connection.execute(LAPSE_LOCKS)
        connection.execute(REMEMBER, (boot,))


def _remembered(database: Database) -> str | None:
    row = database.glance(lambda connection: connection.execute(BOOT).fetchone())
    return None if row is None else str(row[0])
