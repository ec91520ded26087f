"""`python -m kasmos` is `kas`."""

from kasmos.cli.main import main

if __name__ == "__main__":
    main()
