"""Durable state behind the store ports: SQLite in one file.

sqlite.py            SqliteStore: opened, looked after and closed
decision_store.py  admin_store.py  device_store.py  outbox_store.py    its ports, each method one hop
hops.py              the hops: to the writer in groups, to the readers
connection.py        aiosqlite with a whole transaction a hop; PRAGMAs; errors translated
grouping.py          what waits together is done together, bounded
writer.py            one group of writes, one transaction
facts.py             one group of reads, one statement
enrollments.py  registrations.py  challenges.py  audit.py      the SQL of one table each
rows/                records to JSON and back, and the digest that notices a flipped bit
schema.py            migrations/0001_….sql and the runner
backup.py            backup, restore, check
"""

from provisiond.store.audit import AuditVerdict
from provisiond.store.backup import restore_backup
from provisiond.store.hops import Statistics
from provisiond.store.sqlite import SqliteStore

__all__ = ["AuditVerdict", "SqliteStore", "Statistics", "restore_backup"]
