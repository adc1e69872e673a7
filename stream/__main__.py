"""`python -P -m stream` is the command `rec2pm`. Without -P, Python imports a stray model.py of the current folder."""

from stream.commands.main import main

if __name__ == "__main__":
    main(prog_name="rec2pm")
