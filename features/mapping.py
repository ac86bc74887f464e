"""Turns a source's rows into a table of the contract: typed, checked, each bad one with its reason."""

from features import contract
from features.errors import UserError
from features.lake import PARTITIONS
from features.shops import Source
from features.sources import identifier, literal

ROWS_PER_SOURCE = 10**12


def typed_and_checked(table: contract.Table, source: Source, theirs: list[str], number: int) -> str:
    """A SELECT over the view ``source`` of every row in the contract's columns and types, and what else it has.

    theirs : the source's columns
    number : of the source among the table's; later sources have higher row numbers
    Adds ``_number``, the row's place; ``_reason`` why it is bad or NULL; ``_row``, a bad row as it came.

    Raises UserError when a required column is missing or a mapping names a column that is not there.
    """
    raw = _raw_expressions(table, source, theirs)
    extras = _extras(table, source, theirs)
    mapped = ", ".join([f'{expression} as "{name}"' for name, expression in raw.items()])
    typed = [_typed(column, column.name in raw) for column in table.columns]
    reasons = " ".join(f"when {wrong} then '{reason}'" for wrong, reason in _faults(table, raw))
    return f"""
        with mapped as (
            select {", ".join([mapped, *extras])}, cast(to_json(_source_row) as varchar) as "_row",
                {number * ROWS_PER_SOURCE} + row_number() over () as "_number"
            from source as _source_row
        ),
        typed as (
            select {", ".join(typed)}, {", ".join([*extras, '"_row"', '"_number"'])},
                {_untyped_reason(table, raw)} as "_untyped"
            from mapped
        ),
        judged as (select *, coalesce("_untyped", case {reasons} end) as "_reason" from typed)
        select * exclude ("_row", "_untyped"), case when "_reason" is not null then "_row" end as "_row" from judged
    """


def _extras(table: contract.Table, source: Source, theirs: list[str]) -> list[str]:
    reserved = sorted(set(theirs) & set(PARTITIONS))
    if reserved:
        raise UserError(
            f"table {table.name}: the source's column {', '.join(reserved)} has a name of the lake's: rename it"
        )
    taken = {name.lower() for name in (*source.columns.values(), *table.types())}
    return [identifier(name) for name in theirs if name.lower() not in taken and not name.startswith("_")]


def _raw_expressions(table: contract.Table, source: Source, theirs: list[str]) -> dict[str, str]:
    """Our column = SQL for its raw value, for every column of the contract that the source can give."""
    _refuse_unknown_columns(table, source, theirs)
    named = {name.lower(): name for name in theirs}
    raw: dict[str, str] = {}
    for column in (column.name for column in table.columns):
        if column in source.expressions:
            raw[column] = f"({source.expressions[column]})"
        elif column in source.constants:
            raw[column] = literal(source.constants[column])
        elif source.columns.get(column, column).lower() in named:
            raw[column] = identifier(named[source.columns.get(column, column).lower()])
        if column in source.values and column in raw:
            raw[column] = _renamed_values(raw[column], source.values[column])
    missing = [column for column in table.required if column not in raw]
    if missing:
        raise UserError(
            f"table {table.name} needs {', '.join(missing)}: the source has {', '.join(theirs)}; "
            f"say in the shop's TOML which column it is, under [tables.{table.name}] columns"
        )
    return raw


def _refuse_unknown_columns(table: contract.Table, source: Source, theirs: list[str]) -> None:
    ours = set(table.types())
    for part in ("columns", "values", "constants", "expressions"):
        unknown = sorted(set(getattr(source, part)) - ours)
        if unknown:
            raise UserError(
                f"table {table.name} has no column {', '.join(unknown)} (named in {part}): "
                f"its columns are {', '.join(table.types())}"
            )
    absent = sorted({name for name in source.columns.values() if name.lower() not in {t.lower() for t in theirs}})
    if absent:
        raise UserError(
            f"table {table.name}: the source has no column {', '.join(absent)}; its columns are {', '.join(theirs)}"
        )


def _renamed_values(expression: str, values: dict[str, str]) -> str:
    cases = " ".join(f"when {literal(theirs)} then {literal(ours)}" for theirs, ours in values.items())
    return f"case cast({expression} as varchar) {cases} else cast({expression} as varchar) end"


_CASTS = {
    "VARCHAR": "nullif(cast({0} as varchar), '')",
    "DOUBLE": "case when isfinite(try_cast({0} as double)) then try_cast({0} as double) end",
    "TIMESTAMP": "timezone('UTC', try_cast({0} as timestamptz))",
}
_TYPE_WORDS = {
    "BIGINT": "a whole number",
    "DOUBLE": "a number",
    "TIMESTAMP": "a time",
    "DATE": "a date",
    "BOOLEAN": "true or false",
}


def _cast(column: contract.Column) -> str:
    return _CASTS.get(column.type, "try_cast({0} as " + column.type + ")").format(f'"{column.name}"')


def _typed(column: contract.Column, given: bool) -> str:
    return f'{_cast(column) if given else f"cast(null as {column.type})"} as "{column.name}"'


def _untyped_reason(table: contract.Table, raw: dict[str, str]) -> str:
    cases = [
        f"""when "{column.name}" is not null and ({_cast(column)}) is null """
        f"then '{column.name} is not {_TYPE_WORDS[column.type]}'"
        for column in table.columns
        if column.name in raw and column.type in _TYPE_WORDS
    ]
    return f"case {' '.join(cases)} end" if cases else "cast(null as varchar)"


def _faults(table: contract.Table, raw: dict[str, str]) -> list[tuple[str, str]]:
    """(predicate that is true for a bad row, reason)."""
    missing = [(f'"{column.name}" is null', f"{column.name} is missing") for column in table.columns if column.required]
    failed = [
        (f'"{column.name}" is not null and not ({column.check})', column.reason)
        for column in table.columns
        if column.check and column.name in raw
    ]
    return [*missing, *failed, *((f"not ({predicate})", reason) for predicate, reason in table.checks)]
