"""``python -m training`` is the command ``shopkeeper``."""

from training.cli import main

main()
