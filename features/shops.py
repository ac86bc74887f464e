"""A shop's configuration: where its tables come from, which column is which, which event is which."""

import importlib.util
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from features import contract
from features.calendar import country_fault
from features.errors import UserError
from features.home import ROOT, data_folder, home
from features.periods import Frequency

SHOP_FOLDER = ROOT / "configs" / "shops"


Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Wide(_Strict):
    """A sheet with one column per period, as planners keep them."""

    id: list[str]
    """Columns that identify a row."""
    date: str = "column names"
    """The periods are the names of all other columns."""
    value: str
    """Name to give to the cells; the periods are named ``date``."""

    @field_validator("date")
    @classmethod
    def _only_column_names(cls, value: str) -> str:
        if value != "column names":
            raise ValueError('wide.date must be "column names"')
        return value


class Source(_Strict):
    """Where one table, or a part of it, comes from; columns are ours = theirs."""

    path: str = ""
    """Parquet, CSV, or text (.txt, .json) whose lines ``query`` takes apart; .gz too, and globs; relative to the TOML
    file, absolute, or ``package:NAME/FILE``."""
    url: str = ""
    """Database, as SQLAlchemy writes it; needs ``query``."""
    query: str = ""
    """SELECT in the database, or over the file as the relation ``source``; ``$folder`` is the file's folder."""
    encoding: str = "utf-8"
    """Text encoding of a CSV."""
    columns: dict[str, str] = {}
    """Our column = their column; absent: the same name."""
    values: dict[str, dict[str, str]] = {}
    """Our column = {their value = our value}."""
    constants: dict[str, str | int | float | bool] = {}
    """Our column = one value for every row."""
    expressions: dict[str, str] = {}
    """Our column = SQL over their columns."""
    wide: Wide | None = None
    """How to turn a sheet with a column per period into rows."""

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if bool(self.path) == bool(self.url):
            raise ValueError("a source needs either path or url")
        if self.url and not self.query:
            raise ValueError("a source with a url needs a query")
        return self


Positive = Annotated[float, Field(gt=0)]


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


class Shop(_Strict):
    """One shop, as its TOML describes it."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Names its lake and its registered models."""
    timezone: str = "UTC"
    """Zone of times that state none."""
    country: str | None = None
    """Whose public holidays move its demand: ISO 3166 code, or with a subdivision such as DE-BW; absent: none do."""
    currency: str = "EUR"
    """ISO 4217 code of its money."""
    demand_frequency: Frequency = "week"
    """Period in which demand is forecast."""
    monthly_sales: Annotated[tuple[Positive, ...], Field(min_length=12, max_length=12)] | None = None
    """Sales of an average day of January, February and so on, in any unit, as the shop or its trade knows them."""
    live: bool = True
    """Whether events go on: what the service takes in is ingested too; false for data that ended before."""
    notice: str = ""
    """What the data's owner asks to be quoted where results are shown."""
    tables: dict[str, Annotated[list[Source], BeforeValidator(_as_list)]]
    """Sources by table of the contract; several sources are read one after the other."""
    folder: Path = SHOP_FOLDER
    """Folder of the TOML file, to which relative paths refer."""

    @field_validator("tables")
    @classmethod
    def _known_tables(cls, tables: dict[str, list[Source]]) -> dict[str, list[Source]]:
        unknown = sorted(set(tables) - set(contract.TABLES))
        if unknown:
            raise ValueError(f"no table {', '.join(unknown)}; tables are {', '.join(contract.TABLES)}")
        return tables

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError) as error:
            raise ValueError(f"no timezone {value}; use a name such as Europe/Berlin") from error
        return value

    @field_validator("country")
    @classmethod
    def _known_country(cls, value: str | None) -> str | None:
        if value is not None and (fault := country_fault(value)):
            raise ValueError(fault)
        return value

    def locate(self, path: str) -> str:
        """A source's path as an absolute path or glob.

        Raises UserError when it lies in a package that is not installed.
        """
        if path.startswith("package:"):
            return _in_package(path.removeprefix("package:"))
        places = {"$SHOPKEEPER_HOME": str(home()), "$SHOPKEEPER_DATA": str(data_folder())}
        for variable, place in places.items():
            path = path.replace(variable, place)
        return str(self.folder / path)


def _in_package(path: str) -> str:
    package, _, inside = path.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the data package {package} is not installed: pip install 'shopkeeper[demo]'")
    return str(Path(spec.submodule_search_locations[0]) / inside)


def load_shop(name_or_path: str) -> Shop:
    """The shop of a TOML file, or of ``configs/shops/NAME.toml``.

    Raises UserError when there is none or it does not fit, naming the key and what is allowed.
    """
    path = Path(name_or_path) if name_or_path.endswith(".toml") else SHOP_FOLDER / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in SHOP_FOLDER.glob("*.toml")))
        raise UserError(f"no shop {name_or_path}: give the path of a TOML file or one of {known}")
    return checked(Shop, {**read_toml(path), "folder": path.absolute().parent}, path)


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; raises UserError with the line when it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error


def checked(model: type[Model], content: dict[str, Any], path: Path) -> Model:
    """The content as a model; raises UserError naming the first key that does not fit."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = f"; keys are {', '.join(model.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise UserError(f"{path}: {key or 'the file'}: {first['msg']}{known}") from error
