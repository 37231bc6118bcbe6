"""`python -m indexer` is `videobert`."""

from indexer.cli.app import main

if __name__ == "__main__":
    main()
