"""Which column of a class list is which field of a key: by our own names, by those of others, or as the admin says.

The names of others are those of Moodle's lists of participants and of grades, of Canvas' gradebook and list of people,
and what people write above a column in English, German, French and Finnish.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .cells import text_of
from .table import Row, Unreadable

PLAIN = ("user", "name", "group", "email", "note", "active", "starts_at", "expires_at")
RATES = ("requests_per_minute", "tokens_per_minute", "parallel_requests")
BUDGET = ("budget_amount", "budget_unit", "budget_period")
COLUMNS = (*PLAIN, "models", *RATES, *BUDGET, "key")
"""Our own names of columns, which are the fields of a key."""

_IGNORED = frozenset({"id"})
"""Further columns of the file that an import answers with, which may be imported into another gateway."""

_LONGEST_WORD = 19
"""An unknown name that is longer and has no blank is not repeated: in a file without a header it may be a key."""


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split("|"))


_OTHER_NAMES: Mapping[str, frozenset[str]] = {
    "user": _names(
        "username | user name | login | benutzer | benutzername | nutzer | nutzername | anmeldename | kennung | "
        "utilisateur | nom d'utilisateur | identifiant | käyttäjä | käyttäjätunnus | käyttäjänimi"
    ),
    "name": _names("key name | name of the key | schlüsselname | nom de la clé | avaimen nimi"),
    "group": _names(
        "groups | course | class | section | sections | team | gruppe | gruppen | kurs | klasse | groupe | groupes | "
        "cours | classe | ryhmä | ryhmät | kurssi | luokka"
    ),
    "email": _names(
        "e-mail | e mail | mail | email address | e-mail address | emailaddress | e-mail-adresse | email-adresse | "
        "emailadresse | mailadresse | e-mailadresse | adresse e-mail | adresse email | adresse mail | courriel | "
        "adresse de courriel | adresse électronique | courrier électronique | sähköposti | sähköpostiosoite"
    ),
    "note": _names(
        "notes | comment | comments | remark | remarks | notiz | notizen | bemerkung | bemerkungen | anmerkung | "
        "kommentar | remarque | remarques | commentaire | commentaires | huomautus | huomautukset | kommentti | "
        "muistiinpano"
    ),
    "active": _names("enabled | aktiv | actif | active | aktiivinen"),
    "starts_at": _names(
        "start | starts | starts at | start date | valid from | beginn | beginnt am | startdatum | gültig ab | "
        "gültig von | début | date de début | valable à partir du | alkaa | alkupäivä | alkamispäivä | voimassa alkaen"
    ),
    "expires_at": _names(
        "end | ends | expires | expires at | end date | expiry | expiry date | valid until | ende | endet am | "
        "enddatum | gültig bis | ablaufdatum | läuft ab | fin | date de fin | date d'expiration | expire le | "
        "valable jusqu'au | päättyy | päättymispäivä | loppupäivä | voimassa asti | vanhenee"
    ),
    "models": _names("model | modell | modelle | modèle | modèles | malli | mallit"),
    "requests_per_minute": _names(
        "requests per minute | anfragen pro minute | requêtes par minute | pyyntöä minuutissa | pyynnöt minuutissa"
    ),
    "tokens_per_minute": _names(
        "tokens per minute | token pro minute | tokens pro minute | jetons par minute | tokens par minute | "
        "tokenia minuutissa | tokenit minuutissa"
    ),
    "parallel_requests": _names(
        "parallel requests | parallele anfragen | gleichzeitige anfragen | requêtes parallèles | "
        "requêtes simultanées | samanaikaiset pyynnöt"
    ),
    "budget_amount": _names("budget | amount | budget amount | betrag | budgetbetrag | montant | budjetti | summa"),
    "budget_unit": _names("unit | budget unit | einheit | unité | yksikkö"),
    "budget_period": _names("period | budget period | zeitraum | periode | période | jakso"),
    "key": _names("api key | api-key | schlüssel | clé | avain"),
}
_FIRST_NAMES = {
    "en": _names("first name | firstname | first name(s) | given name | given names | forename"),
    "de": _names("vorname | vornamen | vorname(n) | rufname"),
    "fr": _names("prénom | prénoms | prénom(s)"),
    "fi": _names("etunimi | etunimet"),
}
_LAST_NAMES = _names(
    "last name | lastname | surname | family name | last name(s) | nachname | familienname | zuname | nom de famille | "
    "sukunimi"
)
_LAST_BESIDE_FIRST = _names("name | nom | nimi")
"""The last name if there is a column with the first name as well."""
_FULL_NAMES = _names(
    "student | student name | full name | fullname | participant | participants | display name | vollständiger name | "
    "teilnehmer | teilnehmer/in | teilnehmende | studierende | studierende/r | nom complet | nom et prénom | "
    "étudiant | participant·e | koko nimi | opiskelija | osallistuja | nom | nimi"
)
_OF_MOODLE = _names(
    "id number | id-nummer | numéro d'identification | tunnistenumero | id-numero | institution | department | "
    "abteilung | département | oppilaitos | laitos | roles | rollen | rôles | roolit | last access to course | "
    "letzter zugriff auf den kurs | zuletzt im kurs | dernier accès au cours | viimeisin käynti kurssilla | "
    "last downloaded from this course | letzter download aus diesem kurs | zuletzt aus diesem kurs geladen | "
    "dernier téléchargement depuis ce cours | viimeksi ladattu tältä kurssilta"
)
_OF_CANVAS = _names("sis user id | sis login id | sis id | login id | integration id | section")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of one file."""

    of: Mapping[str, tuple[int, ...]]
    """Which columns each field is made of, by field; several are joined with a blank."""
    names: tuple[str, ...]
    export: str | None
    """The program that has written the file: ``moodle``, ``canvas``; ``names`` for another list with first and last
    names, and None for a file of our own columns."""
    ignored: tuple[str, ...]

    def used(self) -> dict[str, list[str]]:
        """Return the names of the columns, by field."""
        return {field: [self.names[index] for index in indexes] for field, indexes in self.of.items()}


def find_columns(
    header: Row, *, mapping: Sequence[tuple[str, str]] = (), ignore_others: bool = False, group: str | None = None
) -> Columns:
    """Find out which column is which field.

    Args:
        mapping: Fields and the columns for them, as the admin says; no column leaves the field empty.
        ignore_others: Whether columns that are not known may be there.
        group: The group of those whose line names none. With it, groups of an export are not looked at, because a
            learning platform's groups are other ones.

    Raises:
        Unreadable: has all that is wrong with the first line.
    """
    names = [text_of(cell) for cell in header.cells]
    while names and not names[-1]:
        names.pop()  # spreadsheets write empty columns at the end
    plain = [_plain(name) for name in names]
    problems: list[str] = []
    told = _told(mapping, plain, names)
    export = _export(plain)
    of, shared = _by_name(plain, export)
    if group is not None and export is not None and "group" in of and plain[of["group"][0]] != "group":
        del of["group"]
    of = {field: indexes for field, indexes in {**of, **told}.items() if indexes}
    used = {index for indexes in of.values() for index in indexes}
    others = [
        index
        for index, name in enumerate(plain)
        if index not in used and name not in _IGNORED and index not in shared and not _is_off(name, told)
    ]
    if not used and not others:
        problems.append(f"Must name the columns. There are: {', '.join(COLUMNS)}.")
    elif not used and export is None:
        problems.append(
            f"Must name the columns, one of which is 'user'. There are: {', '.join(COLUMNS)}. If this line does name "
            "them, say which is which: map=user=COLUMN."
        )
    elif others and export is None and not ignore_others:
        problems.append(
            f"There is no column {', '.join(_named(names[index], index) for index in others[:10])}. There are: "
            f"{', '.join(COLUMNS)}. Say which field it is (map=FIELD=COLUMN), or that other columns are ignored "
            "(ignore_other_columns=true)."
        )
    problems += _twice(plain, names, used, shared, told)
    if "user" not in of and not problems:
        problems.append("Must have the column 'user', or one that is said to be it: map=user=COLUMN.")
    if problems:
        raise Unreadable(" ".join(problems), line=header.number)
    ignored = tuple(names[index] for index in range(len(names)) if index not in used and names[index])
    return Columns(of=of, names=tuple(names), export=export, ignored=ignored)


def _export(plain: Sequence[str]) -> str | None:
    present = {*plain}
    has_first = any(present & names for names in _FIRST_NAMES.values())
    if ("student" in present and "id" in present and present & _OF_CANVAS) or {"name", "login id"} <= present:
        return "canvas"
    if has_first and present & (_LAST_NAMES | _LAST_BESIDE_FIRST):
        return "moodle" if present & _OF_MOODLE else "names"
    return None


def _by_name(plain: Sequence[str], export: str | None) -> tuple[dict[str, tuple[int, ...]], set[int]]:
    """Return the columns by field, and those that are a second choice for a field and may be there as well."""
    of: dict[str, tuple[int, ...]] = {}
    shared: set[int] = set()
    for field in COLUMNS:
        own = [index for index, name in enumerate(plain) if name == field]
        other = [index for index, name in enumerate(plain) if name in _OTHER_NAMES.get(field, ())]
        if own or other:
            of[field] = ((own or other)[0],)
            shared.update(other if own else ())
    if export is not None and plain.count("note"):
        german_or_french = {*plain} & (_FIRST_NAMES["de"] | _FIRST_NAMES["fr"])
        if german_or_french and of.get("note") == (plain.index("note"),):
            del of["note"]  # there it means a grade
    person = _person(plain, export)
    if "user" not in of and person:
        of["user"] = person
        if export is not None and of.get("name") in [(index,) for index in person]:
            del of["name"]  # the name of a person, not of a key
    return of, shared | {*person}


def _person(plain: Sequence[str], export: str | None) -> tuple[int, ...]:
    """Return the columns with the name of the person: first and last name, or both in one."""

    def first_of(names: frozenset[str]) -> list[int]:
        return [index for index, name in enumerate(plain) if name in names][:1]

    first = first_of(frozenset().union(*_FIRST_NAMES.values()))
    if first:
        last = first_of(_LAST_NAMES) or first_of(_LAST_BESIDE_FIRST)
        return (*first, *last) if last else ()
    if export == "canvas":
        return tuple(first_of(frozenset({"student"})) or first_of(frozenset({"name"})))
    return tuple(first_of(_FULL_NAMES))


def _told(mapping: Sequence[tuple[str, str]], plain: list[str], names: list[str]) -> dict[str, tuple[int, ...]]:
    told: dict[str, tuple[int, ...]] = {}
    for field, wanted in mapping:
        if field not in COLUMNS:
            raise Unreadable(f"There is no field {field[:100]!r}. There are: {', '.join(COLUMNS)}.", param="map")
        if field in told:
            raise Unreadable(f"Says twice which column is {field!r}.", param="map")
        parts = [wanted] if _plain(wanted) in plain or not wanted.strip() else wanted.split("+")
        missing = [part.strip() for part in parts if part.strip() and _plain(part) not in plain]
        if missing:
            there = ", ".join(_named(name, index) for index, name in enumerate(names[:50]))
            raise Unreadable(f"There is no column {missing[0][:100]!r} in the file. It has: {there}.", param="map")
        told[field] = tuple(plain.index(_plain(part)) for part in parts if part.strip())
    return told


def _is_off(name: str, told: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether *name* is the column of a field that the admin leaves empty, or takes from another column."""
    return any(name == field or name in _OTHER_NAMES.get(field, ()) for field in told)


def _twice(
    plain: list[str], names: list[str], used: set[int], shared: set[int], told: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Return what is wrong with columns of which two are the same field."""
    problems = []
    repeated = [index for index in sorted(used) if plain.count(plain[index]) > 1]
    if repeated:
        twice = dict.fromkeys(_named(names[index], index) for index in repeated)
        problems.append(f"Names a column twice: {', '.join(list(twice)[:10])}.")
    for field, others in _OTHER_NAMES.items():
        same = [index for index, name in enumerate(plain) if name in others and index not in shared]
        if field not in told and len({plain[index] for index in same}) > 1 and used & {*same}:
            both = " and ".join(_named(names[index], index) for index in same[:3])
            problems.append(f"The columns {both} are both {field!r}: say which one it is: map={field}=COLUMN.")
    return problems


def _plain(name: str) -> str:
    """Return *name* as names are compared: without case, kinds of blanks and apostrophes, and marks at the end."""
    return re.sub(r"\s+", " ", name.replace("\u2019", "'")).strip().rstrip(":*").rstrip().casefold()


def _named(name: str, index: int) -> str:
    # Do not quote text that does not look like a name: in a file without a header it may be a cell with a key.
    is_word = re.fullmatch(r"(?:[^\W\d]|[ '’./()-])+", name) and len(name) <= _LONGEST_WORD  # noqa: RUF001
    is_phrase = " " in name and len(name) <= 80 and name.isprintable()
    return repr(name) if is_word or is_phrase else f"number {index + 1}"
