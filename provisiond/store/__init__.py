"""Durable state behind the store ports: SQLite in one file.

sqlite.py            SqliteStore: the ports, each method one hop
connection.py        aiosqlite with a whole transaction a hop; PRAGMAs; errors translated
grouping.py          what waits together is done together, bounded
writer.py            one group of writes, one transaction
facts.py             one group of reads, one statement
enrollments.py  registrations.py  challenges.py  audit.py      the SQL of one table each
rows.py              records to JSON and back, and the digest that notices a flipped bit
schema.py            migrations/0001_….sql and the runner
backup.py            backup, restore, check
"""

from provisiond.store.audit import AuditVerdict
from provisiond.store.backup import restore_backup
from provisiond.store.sqlite import SqliteStore, Statistics

__all__ = ["AuditVerdict", "SqliteStore", "Statistics", "restore_backup"]
