"""``python -m onceward.toolkit.cli``: the command line where the script is not on the path."""

from onceward.toolkit.cli import main

if __name__ == "__main__":
    main()
