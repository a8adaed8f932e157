"""``python -m dataeng``."""

from dataeng.cli import main

if __name__ == "__main__":
    main()
