"""The SQLite store: files that all processes of one host share."""

from .admins import SQLiteAdmins
from .alerts import SQLiteAlerts
from .audit import SQLiteAuditLog
from .counters import COUNTERS, SQLiteCounters
from .database import SQLiteDatabase
from .erasures import SQLiteErasures
from .identities import SQLiteIdentities, SQLiteSessions
from .keys import SQLiteKeys
from .organisation import SQLiteOrganisation
from .persons import SQLitePersons
from .refusals import SQLiteRefusalLog
from .usage import SQLiteUsageLog

__all__ = [
    "COUNTERS",
    "SQLiteAdmins",
    "SQLiteAlerts",
    "SQLiteAuditLog",
    "SQLiteCounters",
    "SQLiteDatabase",
    "SQLiteErasures",
    "SQLiteIdentities",
    "SQLiteKeys",
    "SQLiteOrganisation",
    "SQLitePersons",
    "SQLiteRefusalLog",
    "SQLiteSessions",
    "SQLiteUsageLog",
]
