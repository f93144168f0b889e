"""The embedded store: SQLite files that several processes of one host share."""

from .counters import COUNTERS, SQLiteCounters
from .database import SQLiteDatabase
from .keys import SQLiteKeys
from .memory import MemoryDatabase
from .organisation import SQLiteOrganisation
from .usage import SQLiteUsageLog

__all__ = [
    "COUNTERS",
    "MemoryDatabase",
    "SQLiteCounters",
    "SQLiteDatabase",
    "SQLiteKeys",
    "SQLiteOrganisation",
    "SQLiteUsageLog",
]
