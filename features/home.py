"""Where Shopkeeper finds and keeps its files; read from the environment when asked, never at import."""

import os
from pathlib import Path

from features.errors import UserError

ROOT = Path(__file__).parent.parent


def home() -> Path:
    """The folder under which everything that commands write lies: ``$SHOPKEEPER_HOME``, else ``.shopkeeper``."""
    folder = Path(os.environ.get("SHOPKEEPER_HOME", ".shopkeeper")).absolute()
    if set("'[]*?") & set(str(folder)):
        raise UserError(
            f"SHOPKEEPER_HOME is {folder}: choose a folder without quotes, brackets, stars and question marks"
        )
    return folder


def data_folder() -> Path:
    """The folder of local data sets: ``$SHOPKEEPER_DATA``, else ``../shared/data`` beside the project."""
    return Path(os.environ.get("SHOPKEEPER_DATA", ROOT.parent / "shared" / "data")).absolute()
