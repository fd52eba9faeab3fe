"""Parts of dates as features: months, weekdays and hours are categories, and years are numbers.

A line through time extrapolates, so years are clamped to those of the training part, and days are not counted.
"""

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gradmill.rows import (
    DATES,
    DIGITS_FORM,
    NAMES,
    NO_DAY,
    NO_NUMBER,
    PARTS_OF_DAYS,
    SHOWN,
    WEEKDAY,
    date_pattern,
    find_zone,
    read_month,
    read_year,
)
from tasks.data.io.tabular import DateForm, kind_of, normalize, to_numbers, to_text
from tasks.data.levels import Levels
from tasks.data.recipe import Column
from tasks.data.report import Finding, error
from tasks.machine.arrays import Array

LEVELS = {  # complete from version 1 on
    "month": tuple(map(str, range(1, 13))),
    "weekday": tuple(map(str, range(1, 8))),  # Monday is 1
    "hour": tuple(map(str, range(24))),
}
FEWEST_YEARS = 3
MOSTLY = 0.9  # share of a column's values that are dates, from which the others are faults
SAMPLED = 100  # texts that are looked at
BLOCK = 2**20  # values at once: parsing takes a hundred bytes per value
DAY = np.timedelta64(1, "D")
FORESEEN = np.datetime64("2037-01-01", "us")
FIRST, LAST = np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31T23:59:59.999999", "us")  # that Python knows
NO_TIME = np.datetime64("NaT", "us")
ISO_8601 = DateForm()
DATE_OF_DIGITS = DateForm(DIGITS_FORM, needs_date=True)
FIRST_DIGITS, LAST_DIGITS = 1900_01_01, 2100_12_31
MONTH_FORM = "12.2024"
MONTHS = DateForm(MONTH_FORM, needs_date=True)
# Of dates and times in any form.
BEGINNING = rf"^\s*{WEEKDAY}(?:\d{{1,4}}(?:[-/.: 年]|\d{{4}}|(?i:{NAMES}))|(?i:{NAMES}))"
FEWEST_MONTHS = 3  # of numbers that may be months: all rates of exchange, such as 1.1975, may have one
CLOCK = ("hour", "minute", "second")


class Dates(NamedTuple):
    """Dates and times ``(n,)`` as a clock shows them, and which values are not dates."""

    moments: Array  # datetime64[us], NaT where a value is missing or no date
    is_invalid: Array  # bool
    zones: frozenset[str] = frozenset()  # of the values, such as Europe/Berlin or +02:00; empty for those without

    def take(self, part: str) -> Array:
        """A part ``(n,)`` float64: a code, or a year; NaN if missing, ``NO_NUMBER`` if it is not a date."""
        moments = np.where(np.isnat(self.moments), np.datetime64(0, "us"), self.moments)
        months, days = moments.astype("M8[M]").astype(np.int64), moments.astype("M8[D]").astype(np.int64)
        values = {
            "month": lambda: months % 12,
            "weekday": lambda: (days + 3) % 7,  # 1970 began on a Thursday
            "hour": lambda: moments.astype("M8[h]").astype(np.int64) % 24,
            "year": lambda: months // 12 + 1970,
        }[part]()
        found = np.where(np.isnat(self.moments), np.nan, values)
        found[self.is_invalid] = NO_NUMBER
        return found


def form_of(parts: Sequence[Column]) -> DateForm:
    """How a recipe reads the column of which it takes these parts."""
    needs_date = any(column.part in PARTS_OF_DAYS for column in parts)
    return DateForm(parts[0].form, parts[0].zone, needs_date)


def read_dates(values: Any, read_as: DateForm = ISO_8601, missing: Sequence[str] = ()) -> Dates:
    """The dates of an array of any type, chunked or not: only dates and text in their form count as dates.

    Dates with a time zone are converted to the form's zone, or kept as written if it has none. A time of day is dated
    1970-01-01, or is invalid if the column needs dates. Dates listed in ``missing`` count as missing values.
    """
    if isinstance(values, pa.Array) and len(values) > BLOCK:
        values = pa.chunked_array([values.slice(start, BLOCK) for start in range(0, len(values), BLOCK)])
    if isinstance(values, pa.ChunkedArray):
        none = Dates(np.empty(0, NO_TIME.dtype), np.empty(0, bool))
        every = [none, *(read_dates(chunk, read_as, missing) for chunk in values.chunks)]
        all_moments, all_invalid, all_zones = zip(*every, strict=True)
        return Dates(np.concatenate(all_moments), np.concatenate(all_invalid), frozenset().union(*all_zones))
    if pa.types.is_dictionary(values.type):
        moments, is_invalid, zones = read_dates(values.dictionary, read_as, missing)
        codes = values.indices.fill_null(-1).to_numpy(zero_copy_only=False)  # -1 picks the last
        return Dates(np.append(moments, NO_TIME)[codes], np.append(is_invalid, False)[codes], zones)
    try:
        moments, is_invalid, zones = _read_dates(values, read_as)
    except pa.ArrowInvalid:  # for an unknown time zone
        return Dates(np.full(len(values), NO_TIME), np.asarray(values.is_valid()))
    if missing:
        codes = read_dates(pa.array(missing, pa.string()), DateForm(read_as.form)).moments
        moments = np.where(np.isin(moments, codes), NO_TIME, moments)
    is_beyond = (moments < FIRST) | (moments > LAST)
    return Dates(np.where(is_beyond, NO_TIME, moments), is_invalid | is_beyond, zones)


def find_missing(values: pa.Array, read_as: DateForm, missing: Sequence[str]) -> set[str]:
    """Which of the texts in ``missing`` are among some dates."""
    every = read_dates(pa.array(missing, pa.string()), DateForm(read_as.form)).moments
    codes = {text: moment for text, moment in zip(missing, every, strict=True) if not np.isnat(moment)}
    moments = read_dates(values, read_as).moments if codes else every
    return {text for text, moment in codes.items() if (moments == moment).any()}


def _read_dates(values: pa.Array, read_as: DateForm) -> Dates:
    kind = kind_of(values.type)
    if kind == "number" and read_as.form == DIGITS_FORM:
        return read_dates(to_text(values), read_as)
    if kind == "text":
        return _parse_dates(pc.utf8_trim_whitespace(values.cast(pa.string())), read_as)
    is_clock = pa.types.is_time(values.type) and read_as.needs_date
    if kind != "date" or pa.types.is_duration(values.type) or is_clock:
        is_there = pc.is_null(values, nan_is_null=True)
        return Dates(np.full(len(values), NO_TIME), ~np.asarray(is_there))
    if written := getattr(values.type, "tz", None):
        moments = _localize(_to_numpy(values.cast(pa.timestamp("us", "UTC"), safe=False)), read_as.zone or written)
        return Dates(moments, np.zeros(len(values), bool), frozenset({written}))
    return Dates(_to_numpy(normalize(values)), np.zeros(len(values), bool), frozenset({""}))


def _to_numpy(moments: pa.Array) -> Array:
    return np.array(moments.cast(pa.int64()).fill_null(NO_TIME.astype(np.int64))).view(NO_TIME.dtype)


def _parse_dates(texts: pa.Array, read_as: DateForm) -> Dates:
    form, zone = read_as.form, read_as.zone
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    if not form and pc.all(pc.match_substring_regex(texts, date_pattern(form)), min_count=0).as_py():
        parsed = parse_dates(texts)  # None if some are times of day or no dates, or only some have a zone
        if parsed is not None and (zone or parsed.type.tz is None):
            moments = _to_numpy(parsed)
            moments = _localize(moments, zone) if parsed.type.tz else moments
            return Dates(moments, np.zeros(len(texts), bool), frozenset({parsed.type.tz or ""}))
    found = pc.extract_regex(texts, date_pattern(form))
    has_date = np.asarray(pc.fill_null(pc.not_equal(found.field("year"), ""), False))
    day, hour, minute, second = (_to_integers(found.field(name)) for name in ("day", *CLOCK))
    day = np.where(np.asarray(pc.equal(found.field("day"), "").fill_null(False)), 1, day)  # of a month without a day
    year = _read_distinct(found.field("year"), read_year)
    month = _read_distinct(found.field("month"), read_month)
    half = np.asarray(pc.ascii_lower(found.field("half")).fill_null("").to_numpy(zero_copy_only=False))
    is_hour = (half == "") | ((hour >= 1) & (hour <= 12))
    hour = np.where(half == "", hour, hour % 12 + 12 * (half == "p"))
    months = np.where(has_date, 12 * (year - 1970) + month - 1, 0).astype("M8[M]")
    dates = months.astype("M8[D]") + np.where(has_date, day - 1, 0) * DAY
    moments = dates + (3600 * hour + 60 * minute + second) * np.timedelta64(1_000_000, "us")
    is_sound = (dates.astype("M8[M]") == months) & (hour < 24) & (minute < 60) & (second < 60)
    is_sound &= ~has_date | ((month >= 1) & (month <= 12) & (day >= 1) & (year >= 1))
    is_sound &= is_hour & np.asarray(found.is_valid())
    has_minutes = np.asarray(pc.fill_null(pc.not_equal(found.field("minute"), ""), False))
    is_sound &= has_date | (has_minutes & (not read_as.needs_date))
    offsets = found.field("zone").dictionary_encode()
    zones = [find_zone(each.strip()) if each else None for each in offsets.dictionary.to_pylist()]
    if zone:
        codes = offsets.indices.fill_null(-1).to_numpy(zero_copy_only=False)  # -1 picks the last
        away = np.array([*(each.utcoffset(None) if each else 0 for each in zones), 0], "m8[s]")[codes]
        is_elsewhere = np.array([*map(bool, zones), False])[codes]  # the others are in it already
        moments = np.where(is_elsewhere, _localize(moments - away, zone), moments)
    names = frozenset(str(each).removeprefix("UTC") or "UTC" if each else "" for each in zones)
    return Dates(np.where(is_sound, moments, NO_TIME), np.asarray(texts.is_valid()) & ~is_sound, names)


def _read_distinct(texts: pa.Array, read: Callable[[str], int]) -> Array:
    """What few distinct texts mean; 0 where there is none."""
    texts = texts.fill_null("").dictionary_encode()
    meanings: Array = np.array([read(text) if text else 0 for text in texts.dictionary.to_pylist()], np.int64)
    indices: Array = np.asarray(texts.indices)
    numbers: Array = meanings[indices]
    return numbers


def _to_integers(digits: pa.Array) -> Array:
    return np.asarray(pc.if_else(pc.equal(digits, ""), "0", digits).fill_null("0").cast(pa.int64()))


def _localize(moments: Array, zone: str) -> Array:
    """What a clock in ``zone`` shows at moments ``(n,)`` in UTC; Arrow does not know summer time after 2037."""
    shown = _to_numpy(
        pc.local_timestamp(pa.array(moments).cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone)))
    )
    if (late := np.flatnonzero((moments >= FORESEEN) & (moments < LAST - DAY))).size:
        distinct, places = np.unique(moments[late], return_inverse=True)
        clocks = (each.replace(tzinfo=UTC).astimezone(find_zone(zone)) for each in distinct.tolist())
        shown[late] = np.array([each.replace(tzinfo=None) for each in clocks], shown.dtype)[places]
    return shown


# The dates of a column about which nothing is known


def parse_dates(texts: pa.Array) -> pa.Array | None:
    """ISO 8601 texts as timestamps, all with a time zone or all without; None if any is not a date."""
    for zone in (None, "UTC"):
        try:
            return texts.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
    return None


def find_form(levels: Levels, name: str) -> DateForm | Finding | None:
    """The form in which text has dates, judged by its levels, or what is wrong with it; None if it has none.

    It is enough if most levels are dates, or most are times of day, so that one bad value does not turn all others
    into a category.
    """
    likely = find_likely_forms(levels.used_levels)
    if not likely:
        return None

    def find_share(read_as: DateForm) -> float:
        is_date = ~read_dates(levels.values, read_as).is_invalid
        return float(levels.counts[is_date].sum() / levels.counts.sum())

    shares = {form: find_share(DateForm(form, needs_date=True)) for form in likely}
    if shares.get(DIGITS_FORM, 1) < 1:  # other numbers are among them
        del shares[DIGITS_FORM]
    best = max(shares.values(), default=0)
    if best < MOSTLY:
        if find_share(ISO_8601) < MOSTLY:
            return None
        if not shares.get(""):
            return ISO_8601
        action = f"write all of them alike, or use --category {name}, --ignore {name} or --no-date-parts"
        return error("dates-among-times", name, f"{name} holds dates, and times of day", "one of the two", action)
    forms = [form for form, share in shares.items() if share == best]
    if len(forms) == 1:
        return DateForm(forms[0], needs_date=True)
    example = str(levels.used_levels.drop_null()[0])[:SHOWN]
    found = f"{name} holds dates such as {example!r}, which {' and '.join(forms)} both fit"
    remedy = f"write them as 2024-12-31, or use --category {name}, --ignore {name} or --no-date-parts"
    return error("date-order", name, found, "dates of one order", remedy)


def find_form_of_numbers(column: pa.ChunkedArray, low: float, high: float) -> str:
    """The form in which numbers between ``low`` and ``high`` all are dates, such as 20241231 or 1.2024, or nothing.

    The latter may also be numbers with four decimals, unless the text that they were read from says otherwise.
    """
    if not (FIRST_DIGITS <= low < high <= LAST_DIGITS or 1 < low < high < 13):
        return ""
    values = np.unique(np.concatenate([to_numbers(chunk) for chunk in column.chunks]))
    values = values[~np.isnan(values)]
    if high >= FIRST_DIGITS:
        is_whole = np.array_equal(values, np.floor(values))
        return DIGITS_FORM if is_whole and not read_dates(pa.array(values), DATE_OF_DIGITS).is_invalid.any() else ""
    months, years = np.divmod(np.round(values * 10_000), 10_000)
    has_years = ((years >= 1900) & (years < 2100) & np.isclose(values * 10_000, np.round(values * 10_000))).all()
    return MONTH_FORM if has_years and len(np.unique(months)) >= FEWEST_MONTHS else ""


def find_likely_forms(texts: pa.Array) -> list[str]:
    """The forms in which some texts have dates, judged by a sample from all over: nearly all columns have none."""
    texts = texts.drop_null()
    sample = texts.take(np.unique(np.linspace(0, len(texts) - 1, SAMPLED).astype(np.int64))) if len(texts) else texts
    if not pc.any(pc.match_substring_regex(sample, BEGINNING)).as_py():  # one pattern instead of one for each form
        return []
    return [form for form in DATES if not read_dates(sample, DateForm(form)).is_invalid.all()]


def find_parts(name: str, column: pa.ChunkedArray, form: str) -> list[Column]:
    """What a column of timestamps, read in this form, adds to a model: the parts that can vary."""
    moments = read_dates(column).moments
    moments = moments[~np.isnat(moments)]
    days = moments.astype("M8[D]")
    if not len(moments) or (moments == moments[0]).all():
        return []
    parts = list[str]()
    if (days != np.datetime64(0, "D")).any():  # otherwise they are times of day
        parts = ["month", "weekday"]
    if (moments - days).min() != (moments - days).max():
        parts.append("hour")
    if "month" in parts and len(np.unique(days.astype("M8[Y]"))) >= FEWEST_YEARS:
        parts.append("year")
    if NO_DAY in DATES[form]:
        parts = [part for part in parts if part != "weekday"]
    return [
        Column(
            name=f"{name}.{part}",
            kind="category" if part in LEVELS else "number",
            levels=LEVELS.get(part, ()),
            form=form,
            source=name,
            part=part,
        )
        for part in parts
    ]
