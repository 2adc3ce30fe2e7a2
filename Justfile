# `just lint`, `just test`, `just quick`, `just docs`; each is one command that also runs without just.

default: lint quick

# what CI checks before the tests
lint:
    ruff check .
    ruff format --check .
    mypy

# everything, under ten minutes on two cores
test *arguments:
    pytest -n 2 --dist worksteal {{arguments}}

# what takes under a minute
quick *arguments:
    pytest -m "not slow" {{arguments}}

# the pages that are executed
docs:
    pytest tests/docs

# the reference, from the code
reference:
    python docs/generate.py

# the pages as a site, in build/site
site:
    mkdocs build --strict
