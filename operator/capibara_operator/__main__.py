"""``python -m capibara_operator``."""

from capibara_operator.cli import main

if __name__ == "__main__":
    main()
