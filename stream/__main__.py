"""`python -m stream`: the command `rec2pm`."""

from stream.commands.main import main

if __name__ == "__main__":
    main()
