"""How values become a column's numbers or codes, wherever named values are turned into a model's input.

As a code, NaN means missing, ``UNKNOWN`` a level that the model has not seen, and infinity a value that is not a
number or, in a category, no single value.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.float64]]  # see ``explain_rows``
Kind = Literal["number", "boolean", "category"]
Part = Literal["", "month", "weekday", "hour", "year"]  # of a date
Unknown = Literal["warn", "average", "reject"]
UNKNOWN = -1.0
NO_NUMBER = NO_LEVEL = np.inf
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?[iI]nf(inity)?|[+-]?[nN][aA][nN]", re.ASCII)
HEX = re.compile(r"0[xX][0-9a-fA-F]{1,15}")
TRUTH = {"false": 0.0, "true": 1.0}  # in any case
SPACE = "[ \u00a0\u2007\u2009\u202f]?"  # before a sign that follows a number, or between thousands
NUMBER_FORM = re.compile(r"(\D*)1([.,' ])234([.,])5(\D*)")  # such as $1,234.5
EXCEL_ERRORS = (  # in English and German
    *("#N/A", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!", "#NV", "#ZAHL!", "#BEZUG!", "#WERT!"),
    *("#SPILL!", "#CALC!", "#GETTING_DATA", "#FIELD!", "#BLOCKED!", "#CONNECT!", "#UNKNOWN!", "#BUSY!"),
)
WHOLE_FORM = "1234"  # of whole numbers about whose decimal point or comma nothing is known
MINUS = "\u2212"  # as typographers write it
SIGNS = {"": "", "+": "", "-": "-", MINUS: "-", "()": "-"}  # around a number, and what they mean
NO_SIGN = f"[^-+{MINUS}()]"
# Numbers in that form: one point or comma, unless it could set thousands apart, as in 1.234.
CERTAIN = r"\d*[.,](?:\d{1,2}|\d{4,})|(?:0\d*|\d{4,})?[.,]\d{3}"
WHOLE = re.compile(r"([+-]?\d+)\.0*", re.ASCII)
MIDNIGHT_OR_FRACTION = re.compile(r"( 00:00:00)?\.0*$")  # a zero fraction of a second
DAY, MONTH, YEAR = r"(?P<day>\d{1,2})", r"(?P<month>\d{1,2})", r"(?P<year>\d{4})"
NO_DAY, SHORT_YEAR = r"(?P<day>)", r"(?P<year>\d{2})"
PIVOT = 69  # of years with two digits: from this year on, they are in the 20th century, as for strptime
NAMES = (  # of months, in English and German
    "jan(?:uary?)?|feb(?:ruary?)?|mar(?:ch)?|m[äÄ]rz?|mrz|apr(?:il)?|ma[yi]|jun[ei]?|jul[yi]?|aug(?:ust)?|"
    "sept?(?:ember)?|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?"
)
ENGLISH = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTHS = {name: month for month, name in enumerate(ENGLISH, 1)}
MONTHS |= {"mär": 3, "mrz": 3, "mai": 5, "okt": 10, "dez": 12}
NAME = rf"(?P<month>(?i:{NAMES}))\.?"
WEEKDAY = r"(?:[A-Z][a-z]{1,9}\.?,? )?"
DATES = {  # date formats in text, each named by an example; ISO 8601 is the empty name
    "": rf"{YEAR}-{MONTH}-{DAY}",
    "31.12.2024": rf"{DAY}\. ?{MONTH}\. ?{YEAR}",
    "31/12/2024": rf"{DAY}/{MONTH}/{YEAR}",
    "12/31/2024": rf"{MONTH}/{DAY}/{YEAR}",
    "31-12-2024": rf"{DAY}-{MONTH}-{YEAR}",
    "12-31-2024": rf"{MONTH}-{DAY}-{YEAR}",
    "2024/12/31": rf"{YEAR}/{MONTH}/{DAY}",
    "2024.12.31": rf"{YEAR}\. ?{MONTH}\. ?{DAY}\.?",
    "2024年12月31日": rf"{YEAR}年 ?{MONTH}月 ?{DAY}日",
    "20241231": r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})(?:\.0)?",
    "31 Dec 2024": rf"{WEEKDAY}{DAY}\.?[ /-]?{NAME}[ /-]?{YEAR}",
    "Dec 31, 2024": rf"{WEEKDAY}{NAME} {DAY}(?:st|nd|rd|th)?,? {YEAR}",
    "31 Dec 24": rf"{DAY}\.?[ /-]?{NAME}[ /-]?{SHORT_YEAR}",
    "31.12.24": rf"{DAY}\. ?{MONTH}\. ?{SHORT_YEAR}",
    "31/12/24": rf"{DAY}/{MONTH}/{SHORT_YEAR}",
    "12/31/24": rf"{MONTH}/{DAY}/{SHORT_YEAR}",
    "24/12/31": rf"{SHORT_YEAR}/{MONTH}/{DAY}",
    "31-12-24": rf"{DAY}-{MONTH}-{SHORT_YEAR}",
    "12-31-24": rf"{MONTH}-{DAY}-{SHORT_YEAR}",
    "24-12-31": rf"{SHORT_YEAR}-{MONTH}-{DAY}",
    "2024-12": rf"{YEAR}-{MONTH}{NO_DAY}",
    "2024/12": rf"{YEAR}/{MONTH}{NO_DAY}",
    "12.2024": rf"{MONTH}\.{YEAR}{NO_DAY}",
    "12/2024": rf"{MONTH}/{YEAR}{NO_DAY}",
    "Dec 2024": rf"{NAME}[ -]?{YEAR}{NO_DAY}",
    "2024年12月": rf"{YEAR}年 ?{MONTH}月{NO_DAY}",
}
DIGITS_FORM = "20241231"  # which numbers may have, too
MINUTES = r":(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d+)?)?"
HALF = r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?"
OFFSET = r" ?(?:Z|UTC|GMT|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)"
PARTS_OF_DAYS = ("month", "weekday", "year")  # which a time of day alone does not have
NO_DATE = date(1970, 1, 1)  # the date that a time of day gets
SHOWN = 40  # characters of a value that are shown


@dataclass(frozen=True)
class InputColumn:
    """A column of a model's input; the code of a level is its position. ``is_plain``: values must not be missing."""

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()  # of a category
    is_plain: bool = False
    form: str = ""  # format of numbers or dates in text: $1,234.5, 31.12.2024
    missing: tuple[str, ...] = ()  # texts, and numbers as text, that mean a missing value
    source: str = ""  # the date column that this is a ``part`` of
    part: Part = ""
    zone: str = ""  # time zone to which dates of other zones are converted
    limits: tuple[float, float] | None = None  # values of a number are clipped to these

    def __repr__(self) -> str:
        return f"InputColumn(name={self.name!r}, kind={self.kind!r})"

    @property
    def input_name(self) -> str:
        """The name of the input column that users provide."""
        return self.source or self.name

    @cached_property
    def codes(self) -> dict[str, int]:
        """The code of each level."""
        return {level: code for code, level in enumerate(self.levels)}

    def encode(self, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64]:
        """The number or code of each value ``(n,)``; equal values are encoded only once."""
        if self.kind == "number" and not self.part and isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
            missing, numbers = np.array(self._missing_numbers), values.astype(np.float64)
            if values.dtype.kind == "f":  # float32 has no -999.9, but one nearest to it
                with np.errstate(over="ignore"):
                    missing = missing.astype(values.dtype)
            return np.where(np.isin(values, missing), np.nan, numbers)
        encode = self._encode_level if self.kind == "category" else self._encode_number
        encode = self._encode_date if self.part else encode
        values = values.tolist() if isinstance(values, np.ndarray) else values
        try:
            keys = [(type(value), value, _find_offset(value)) for value in values]  # True equals 1
            found = {key: encode(key[1]) for key in set(keys)}
            return np.array([found[key] for key in keys], np.float64)
        except TypeError:  # an unhashable value, such as a list
            return np.array([encode(value) for value in values], np.float64)

    @cached_property
    def _missing_numbers(self) -> list[float]:
        return read_missing(self.missing, "" if self.part else self.form)

    @cached_property
    def _missing_levels(self) -> set[str]:
        return {name_level(text) for text in self.missing}

    @cached_property
    def _missing_dates(self) -> set[datetime]:
        return {moment for text in self.missing if (moment := read_date(text, self.form))}

    def _is_missing(self, value: Any) -> bool:
        if is_missing(value):
            return True
        if isinstance(value, str):
            return value in self.missing or (value in EXCEL_ERRORS and value not in self.codes)
        return self.kind != "category" and _is_number(value) and value in self._missing_numbers

    def _encode_level(self, value: Any) -> float:
        if isinstance(value, Iterable) and not isinstance(value, str):
            return NO_LEVEL
        if self._is_missing(value) or (level := name_level(value)) in self._missing_levels:
            return np.nan
        return self.codes.get(level, UNKNOWN)

    def _encode_date(self, value: Any) -> float:
        if self._is_missing(value) or (isinstance(value, str) and not value.strip()):
            return np.nan
        if (moment := read_date(value, self.form, self.zone, needs_date=self.part in PARTS_OF_DAYS)) is None:
            return NO_NUMBER
        if self.missing and moment.replace(tzinfo=None) in self._missing_dates:
            return np.nan
        codes = {"month": moment.month - 1, "weekday": moment.weekday(), "hour": moment.hour, "year": moment.year}
        return float(codes[self.part])

    def _encode_number(self, value: Any) -> float:
        if self._is_missing(value) or (isinstance(value, str) and not value.strip()):
            return np.nan
        if isinstance(value, str):
            if self.kind == "boolean" and value.lower() in TRUTH:
                return TRUTH[value.lower()]
            number = parse_number(value, self.form)
            return np.nan if number in self._missing_numbers else number
        if self.kind == "boolean" and isinstance(value, bool | np.bool_):
            return float(value)
        if not _is_number(value):
            return NO_NUMBER
        try:
            return float(value)
        except OverflowError:  # an integer with more than 308 digits
            return np.inf

    def describe(self, code: float) -> str:
        """The meaning of a number or code of this column, in words."""
        if np.isnan(code):
            return "missing"
        if self.kind == "category":
            return self.levels[int(code)] if 0 <= code < len(self.levels) else "another level"
        return f"{code:.7g}" if self.kind == "number" else ("false", "true")[int(code)]

    def is_valid(self, codes: NDArray[Any], unknown: Unknown) -> NDArray[np.bool_]:
        """Which codes ``(n,)`` may be fed to the model."""
        if self.kind == "category":
            valid = np.isfinite(codes) & ((codes != UNKNOWN) | (unknown != "reject"))
        else:
            valid = np.isin(codes, (0, 1)) if self.kind == "boolean" else np.isfinite(codes)
        return np.asarray(np.where(np.isnan(codes), not self.is_plain, valid))


def describe_fault(kind: Kind, value: Any, code: float, form: str, part: str) -> str:
    """Describe, in words, why a value of such a column is invalid, given the ``code`` that it was encoded as."""
    shown = repr(value[:SHOWN]) if isinstance(value, str) else str(value)[:SHOWN]
    if np.isnan(code):
        return "missing"
    if part:
        return f"{shown}, not a date{f' written like {form}' if form and isinstance(value, str) else ''}"
    if kind == "category":
        return f"{shown}, {'a level that the model has not seen' if np.isfinite(code) else 'not a level'}"
    if kind == "boolean":
        return f"{shown}, neither true nor false"
    if form and isinstance(value, str):
        return f"{shown}, not a number written like {form}"
    is_number = NUMBER.fullmatch(value.strip()) if isinstance(value, str) else _is_number(value)
    return f"{shown}, not a {'finite number' if is_number else 'number'}"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)


def is_missing(value: Any) -> bool:
    """Whether a value is None, or NaN, NaT or ``pandas.NA``, which do not equal themselves."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return isinstance(value, float | np.generic | Decimal | date) and bool(value != value)


def date_pattern(form: str) -> str:
    """The pattern, for ``re`` and RE2, of text in such a form of ``DATES``: a date, a time of day, or both."""
    minutes = rf"(?:{MINUTES})?" if not form else MINUTES  # after a date in ISO 8601, an hour may be alone
    return rf"^(?:{DATES[form]}(?:,?[ T]|$))?(?:(?P<hour>\d{{1,2}}){minutes}{HALF}(?P<zone>{OFFSET})?)?$"


def read_date(value: Any, form: str, zone: str = "", needs_date: bool = False) -> datetime | None:
    """The date and time of a value, converted to ``zone`` if that is given; None if it has none.

    A time of day is dated 1970-01-01, unless the value ``needs_date``. A value without a zone is taken to be in
    ``zone``.
    """
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if form == DIGITS_FORM and _is_number(value):
        value = name_level(value)
    if isinstance(value, str):
        value = _parse_date(value.strip(), form, needs_date)
    elif isinstance(value, time) and not needs_date:
        value = datetime.combine(NO_DATE, value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        return None
    try:
        return value.astimezone(find_zone(zone)) if zone and value.tzinfo else value
    except OverflowError:  # before the first or after the last supported year
        return None


def _parse_date(text: str, form: str, needs_date: bool) -> datetime | None:
    if not text or (found := re.match(date_pattern(form), text, re.ASCII)) is None:
        return None
    if not found["year"] and (needs_date or not found["minute"]):
        return None
    zone = find_zone(found["zone"].strip()) if found["zone"] else None
    try:
        day = NO_DATE
        if year := found["year"]:
            day = date(read_year(year), read_month(found["month"]), int(found["day"] or 1))
        hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
        if half := found["half"]:
            if not 1 <= hour <= 12:
                return None
            hour = hour % 12 + 12 * (half in "Pp")
        return datetime.combine(day, time(hour, minute, second, tzinfo=zone))
    except ValueError:  # such as 2024-02-31
        return None


def read_year(digits: str) -> int:
    """A year, written with two or four digits."""
    return int(digits) + (0 if len(digits) > 2 else 1900 if int(digits) >= PIVOT else 2000)


def read_month(text: str) -> int:
    """The number of a month, written as such or as its name."""
    return int(text) if text.isdigit() else MONTHS[text[:3].lower()]


def _find_offset(value: Any) -> timedelta | None:
    """The UTC offset of a time with a zone, because equal times may have different zones."""
    return value.utcoffset() if isinstance(value, datetime) and not is_missing(value) else None


def find_zone(name: str) -> tzinfo:
    """The time zone of a name such as ``Europe/Berlin`` or an offset such as ``Z`` or ``+02:00``."""
    if re.fullmatch(OFFSET, name) and name not in ("UTC", "GMT"):
        return datetime.fromisoformat(f"{NO_DATE}T00:00{name}").tzinfo or UTC
    return UTC if name in ("UTC", "GMT") else ZoneInfo(name)


def number_pattern(form: str) -> str:
    """The pattern, for ``re`` and RE2, of numbers in such a form.

    Its groups are what stands before the number with its sign, the number, and what stands after it.
    """
    before, separator, point, after = _split_form(form)
    if form == WHOLE_FORM:
        digits = rf"\d+\.?|{CERTAIN}|{HEX.pattern}"
    else:
        thousands = rf"[1-9]\d{{0,2}}(?:{separator}\d{{3}})+"
        if separator == ",":
            thousands += r"|[1-9]\d?(?:,\d{2})+,\d{3}"  # in India
        digits = rf"(?:{thousands}|\d+)(?:{point}\d*)?|{point}\d+"
    return (
        rf"^(?P<sign>[-+{MINUS}(]?{SPACE}{before}{SPACE}[-+{MINUS}(]?{SPACE})"
        rf"(?P<number>(?:{digits})(?:[eE][+-]?\d+)?|(?i:nan))"
        rf"(?P<end>{SPACE}[-)]?{SPACE}{after}{SPACE}[-)]?)$"
    )


def _split_form(form: str) -> tuple[str, ...]:
    """Patterns of what stands before numbers in a form, between thousands, before a fraction, and after numbers."""
    if form == WHOLE_FORM:
        return "", "", "[.,]", ""
    if (parts := NUMBER_FORM.fullmatch(form)) is None:
        raise ValueError(f"{form!r} is not a form of numbers")
    before, separator, point, after = (re.escape(part.strip()) for part in parts.groups())
    return before, {"": SPACE.removesuffix("?"), "'": "['\u2019]"}.get(separator, separator), point, after


def plain_number(form: str) -> tuple[tuple[str, str], ...]:
    """Patterns, and what replaces them one after the other, that make a plain number of one in such a form."""
    _, separator, point, _ = _split_form(form)
    thousands = ((separator, ""),) if separator else ()
    return (*thousands, (point, "."))


def parse_number(text: str, form: str = "") -> float:
    """The number in a text, infinite beyond the range of float64; ``NO_NUMBER`` if it is not a number.

    A ``form`` such as ``$1,234.5`` or ``1.234,5 %`` allows thousands separators; percentages become fractions.
    """
    text = text.strip()
    if form:
        found = re.match(number_pattern(form), text, re.ASCII)
        if found is None or (sign := re.sub(NO_SIGN, "", found["sign"] + found["end"])) not in SIGNS:
            return NO_NUMBER
        plain = found["number"]
        for pattern, replacement in plain_number(form):
            plain = re.sub(pattern, replacement, plain)
        number = parse_number(SIGNS[sign] + plain)
        return number / 100 if form.endswith("%") else number
    if HEX.fullmatch(text):
        return float(int(text, 16))
    return float(text) if NUMBER.fullmatch(text) else NO_NUMBER


def read_missing(texts: Iterable[str], form: str = "") -> list[float]:
    """The numbers that texts for missing values are in a column of such a form: -999 is also ``$-999.00``.

    Signs of the form may be left out. A text in another form is a plain number.
    """
    numbers, affixes = list[float](), NUMBER_FORM.fullmatch(form)
    before, after = affixes.group(1, 4) if affixes else ("", "")
    for text in texts:
        readings = parse_number(text, form), parse_number(f"{before}{text}{after}", form), parse_number(text)
        numbers += [number + 0.0 for number in readings if number != NO_NUMBER][:1]  # -0 becomes 0
    return numbers


def name_level(value: Any) -> str:
    """The level of a value: integers without a decimal point, ``true`` and ``false`` in lower case.

    Dates and times are in ISO 8601 with a space between the two; midnight is the date alone.
    """
    if isinstance(value, np.generic) and not isinstance(value, np.float32):
        value = value.astype("datetime64[us]").item() if isinstance(value, np.datetime64) else value.item()
    if isinstance(value, date):
        return MIDNIGHT_OR_FRACTION.sub("", value.strftime("%Y-%m-%d %H:%M:%S.%f%z").replace("+0000", "Z"))
    value = float(value) if isinstance(value, Decimal) else value
    if isinstance(value, float | np.float32):
        if float(value).is_integer():
            return str(int(value))
        single = np.float32(value)  # a file may have had float32: as float64, 1.1 has a long tail
        return str(single if float(single) == float(value) else value)
    text = str(value)
    whole = WHOLE.fullmatch(text)
    return whole[1] if whole else text.lower() if text.lower() in TRUTH else text


def encode_rows(rows: Any, columns: Mapping[str, InputColumn], unknown: Unknown = "warn") -> NDArray[np.float32]:
    """Encode rows as ``(n, columns)``: a mapping, mappings, a pandas or polars DataFrame, or an Arrow table.

    A pandas Series counts as a mapping. Columns that the model does not take are ignored. With ``unknown`` "warn",
    unknown levels are counted in a warning that points at the caller of the model's method.

    Raises:
        ValueError: a column is missing, or a value does not fit its column.
        TypeError: ``rows`` has another type.
    """
    if unknown not in get_args(Unknown):
        raise ValueError(f"unknown is {unknown!r}, not 'warn', 'average' or 'reject'")
    values = [*_take_columns(rows, columns)]
    features = np.empty((len(values[0]), len(columns)), np.float32)
    for at, (of_column, column) in enumerate(zip(values, columns.values(), strict=True)):
        with np.errstate(over="ignore"):
            features[:, at] = column.encode(of_column)
        for row in np.flatnonzero(~column.is_valid(features[:, at], unknown))[:1]:
            fault = describe_fault(column.kind, of_column[row], features[row, at], column.form, column.part)
            raise ValueError(f"{column.input_name} is {fault} (row {row}, counted from 0)")
    if unknown == "warn":
        _warn_of_unknown_levels(features, [*columns.values()])
    return features


def _warn_of_unknown_levels(features: NDArray[np.float32], columns: Sequence[InputColumn]) -> None:
    """Count the rows with unknown levels; without the levels, the texts of these warnings are few in a long process."""
    is_unknown = np.array([column.kind == "category" for column in columns]) & (features == UNKNOWN)
    if count := np.count_nonzero(is_unknown.any(axis=1)):
        shares = zip(columns, is_unknown.any(axis=0), strict=True)
        names = dict.fromkeys(column.input_name for column, has_unknown in shares if has_unknown)
        found = f"{count:,} of {len(features):,} rows have a level that the model has not seen ({', '.join(names)})"
        warnings.warn(f"{found}; it counts as the average, unless unknown is 'reject'", stacklevel=5)


def _take_columns(rows: Any, columns: Mapping[str, InputColumn]) -> Iterable[Sequence[Any] | NDArray[Any]]:
    """The source values of each column, in order."""
    needed = [*dict.fromkeys(column.input_name for column in columns.values())]
    if isinstance(rows, Mapping) or _is_series(rows):
        rows = [rows]
    names = None
    if isinstance(rows, Sized):  # unlike a polars LazyFrame
        names = getattr(rows, "column_names", getattr(rows, "columns", None))  # of Arrow; of pandas and polars
    if names is None:
        rows = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, str | np.ndarray) else [rows]
        rows = [row.to_dict() if _is_series(row) else row for row in rows]
        if wrong := [row for row in rows if not isinstance(row, Mapping)]:
            found = f"rows are {type(wrong[0]).__name__}"
            raise TypeError(f"{found}, not a mapping, mappings, a pandas or polars DataFrame, or an Arrow table")
        for at, row in enumerate(rows):
            _require_columns([*row], needed, f" (row {at}, counted from 0)")
        return ([row[column.input_name] for row in rows] for column in columns.values())
    _require_columns([*names], needed)
    return (_take_column(rows, column) for column in columns.values())


def _is_series(row: Any) -> bool:
    """Whether a row is a pandas Series, such as ``df.iloc[0]``."""
    return hasattr(row, "to_dict") and not hasattr(row, "columns")


def _take_column(frame: Any, column: InputColumn) -> Sequence[Any] | NDArray[Any]:
    array = frame.column(column.input_name) if hasattr(frame, "column_names") else frame[column.input_name]
    is_of_arrow = hasattr(array, "to_pylist")
    if (
        column.kind == "number" and not column.part and not (is_of_arrow and hasattr(array.type, "index_type"))
    ):  # of a dictionary, asarray would lose the nulls
        return np.asarray(array)
    values: list[Any] = array.to_pylist() if is_of_arrow else array.to_list()
    return values


def _require_columns(names: Sequence[Any], needed: Sequence[str], where: str = "") -> None:
    if missing := [name for name in needed if name not in names]:
        raise ValueError(f"column {', '.join(map(repr, missing))} is missing{where}")
    if twice := [name for name in needed if names.count(name) > 1]:
        raise ValueError(f"column {twice[0]!r} occurs twice")


def find_columns(recipe: Mapping[str, Any]) -> dict[str, InputColumn]:
    """The columns in a manifest's ``recipe``, by name and in order; empty for images."""
    return {
        each["name"]: InputColumn(
            name=each["name"],
            kind=each["kind"],
            levels=tuple(each["levels"]),
            is_plain=each["kind"] == "number" and each["mean"] is None,
            missing=tuple(recipe.get("missing", ())),
            limits=tuple(each["limits"]) if "limits" in each else None,
            **{key: each[key] for key in ("form", "source", "part", "zone") if key in each},
        )
        for each in recipe.get("columns", ())
    }


def explain_rows(features: NDArray[np.float32], columns: list[InputColumn], weights: Weights) -> NDArray[np.float64]:
    """The contribution of each term to the prediction, with the intercept last: ``(n, terms + 1)``.

    Terms are the columns and then the pairs of columns (``name_terms``). For two outputs, a contribution is that to the
    second's log odds; for more, the shape is ``(n, outputs, terms + 1)``, and each score is measured from the mean of
    all. ``weights`` are in raw units: ``mean`` ``(numbers,)`` and ``weights`` ``(numbers, outputs)`` of numbers and
    booleans in order; ``effects`` ``(codes, outputs)``, for each category in turn those of its levels, of a missing
    value and of an unknown one; and ``intercept`` ``(outputs,)``, the score of a row whose terms are all average.
    Versions with curves or pairs have more (``tasks/serving/raw_units.py``).
    """
    pairs, num_outputs = weights.get("pairs", np.empty((0, 2), np.int64)), len(weights["intercept"])
    added = np.empty((len(features), num_outputs, len(columns) + len(pairs) + 1))
    added[..., -1] = weights["intercept"]
    numbers, codes = dict[int, NDArray[np.float64]](), dict[int, NDArray[np.int64]]()
    start = 0
    for at, column in enumerate(columns):
        values = features[:, at].astype(np.float64)
        if column.kind == "category":
            count = len(column.levels)
            codes[at] = np.where(np.isnan(values), count, np.where(values < 0, count + 1, values)).astype(np.int64)
            added[..., at] = weights["effects"][start + codes[at]]
            start += count + 2
        else:
            number = len(numbers)
            values = np.clip(values, *column.limits) if column.limits else values
            mean = weights["mean"][number]
            values = np.where(np.isnan(values), mean, values)
            numbers[at] = values - mean
            added[..., at] = numbers[at][:, np.newaxis] * weights["weights"][number]
            if "slopes" in weights:
                own = weights["segment_numbers"] == number
                starts = weights["segment_starts"][own]
                within = np.clip(values[:, np.newaxis], starts, weights["segment_ends"][own])
                added[..., at] += (within - starts) @ weights["slopes"][own] - weights["curve_means"][number]
    for place, (first, second) in enumerate(pairs):
        row, factor = weights["pair_starts"][place] + np.zeros(len(features), np.int64), np.ones(len(features))
        for at, stride in ((first, len(columns[second].levels) + 2 if second in codes else 1), (second, 1)):
            if at in codes:
                row += codes[at] * stride
            else:
                factor = factor * numbers[at]
        product = factor[:, np.newaxis] * weights["pair_weights"][row]
        added[..., len(columns) + place] = product - weights["pair_means"][place]
    if added.shape[1] == 2:
        return added[:, 1] - added[:, 0]
    return added[:, 0] if added.shape[1] == 1 else added - added.mean(axis=1, keepdims=True)


def name_terms(columns: Sequence[str], recipe: Mapping[str, Any]) -> tuple[str, ...]:
    """What predictions are sums of: the columns, and the pairs of columns in a manifest's ``recipe``."""
    return (*columns, *(" \u00d7 ".join(pair) for pair in recipe.get("pairs", ())))
