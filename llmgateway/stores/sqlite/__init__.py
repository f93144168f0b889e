"""The embedded store: one SQLite file that several processes of one host share."""

from .audit import SQLiteAuditLog
from .database import SQLiteDatabase
from .keys import SQLiteKeys
from .organisation import SQLiteOrganisation
from .usage import SQLiteUsageLog

__all__ = ["SQLiteAuditLog", "SQLiteDatabase", "SQLiteKeys", "SQLiteOrganisation", "SQLiteUsageLog"]
