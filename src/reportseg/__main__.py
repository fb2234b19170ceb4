"""`python -m reportseg`, where the command is not on the PATH."""

from .cli import app

app(prog_name="reportseg")
