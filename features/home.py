"""Where Shopkeeper finds and keeps its files; read from the environment when asked, never at import."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent


def home() -> Path:
    """The folder under which everything that commands write lies: ``$SHOPKEEPER_HOME``, else ``.shopkeeper``."""
    return Path(os.environ.get("SHOPKEEPER_HOME", ".shopkeeper")).absolute()


def data_folder() -> Path:
    """The folder of local data sets: ``$SHOPKEEPER_DATA``, else ``../shared/data`` beside the project."""
    return Path(os.environ.get("SHOPKEEPER_DATA", ROOT.parent / "shared" / "data")).absolute()
