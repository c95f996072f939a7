"""``python -m onceward.toolkit.cli``."""

from onceward.toolkit.cli import main

main()
