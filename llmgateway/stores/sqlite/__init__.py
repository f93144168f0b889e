"""The embedded store: SQLite files that several processes of one host share."""

from .audit import SQLiteAuditLog
from .counters import COUNTERS, HELD_SECONDS, SQLiteCounters
from .database import SQLiteDatabase
from .keys import SQLiteKeys
from .memory import MemoryDatabase
from .organisation import SQLiteOrganisation
from .usage import SQLiteUsageLog

__all__ = [
    "COUNTERS",
    "HELD_SECONDS",
    "MemoryDatabase",
    "SQLiteAuditLog",
    "SQLiteCounters",
    "SQLiteDatabase",
    "SQLiteKeys",
    "SQLiteOrganisation",
    "SQLiteUsageLog",
]
