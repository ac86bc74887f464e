"""A shop's TOML is refused with the reason and what would have been allowed."""

from pathlib import Path

import pytest

from features.errors import UserError
from features.shops import Shop, load_shop


def shop(folder: Path, line: str) -> Shop:
    path = folder / "tiny.toml"
    path.write_text(f'name = "tiny"\n{line}\n[tables.demand]\npath = "demand.csv"\n')
    return load_shop(str(path))


def test_a_country_is_asked_of_nobody(tmp_path: Path):
    assert shop(tmp_path, "").country is None
    assert shop(tmp_path, 'country = "DE-BW"').country == "DE-BW"


@pytest.mark.parametrize(
    ("country", "reason"),
    [
        ("Germany", "country: .*no country Germany: use an ISO 3166 code such as DE"),
        ("DE-XX", "country: .*DE has no subdivision XX: it has BB, BE, BW"),
    ],
)
def test_a_country_that_is_none_is_told(tmp_path: Path, country: str, reason: str):
    with pytest.raises(UserError, match=reason):
        shop(tmp_path, f'country = "{country}"')
