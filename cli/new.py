"""`new handler` on the command line: a handler, the table that it writes, and its tests, as files of the team's."""

from __future__ import annotations

import argparse
import keyword
import os
import re
from pathlib import Path
from string import Template

from chalicelib.postern.adapters.teams_room import TEAMS_MIGRATIONS
from chalicelib.postern.contract.errors import PosternError
from chalicelib.postern.receiving.sources import load_sources
from chalicelib.postern.running.config import Config
from cli import samples
from cli.arguments import Commands
from cli.sources import unknown

_NAME = re.compile("[a-z][a-z0-9_]{0,39}")
_TYPE = re.compile(r"[^\s\"\\]{1,200}")

_HANDLER = Template('''\
"""What $source says of $type."""

from typing import Any

from chalicelib.postern import Event, on


@on("$source", "$type")
def handle(event: Event, db: Any) -> None:
    # Here again on a replay, which is to change nothing twice.
    db.execute(
        """
        INSERT INTO public.$name (event_id, type, received_at)
        VALUES (%s, %s, %s)
        ON CONFLICT (event_id) DO NOTHING
        """,
        (event.id, event.type, event.received_at),
    )
''')

_MIGRATION = Template("""\
CREATE TABLE public.$name (
  event_id     uuid         PRIMARY KEY,
  type         text         NOT NULL,
  received_at  timestamptz  NOT NULL
);
""")

_TEST = Template('''\
"""What the handler $name does (`event`, `db` and `deliver`: docs/handlers.md)."""

from typing import Any

from chalicelib.handlers.$name import handle


def test_an_event_becomes_a_row(event: Any, db: Any) -> None:
    one = event("$source", "$concrete")
    handle(one, db)
    db.execute("SELECT event_id FROM public.$name")
    assert db.fetchall() == [(one.id,)]


def test_a_delivery_is_processed(deliver: Any, db: Any) -> None:
    one = deliver("$source", "$concrete")
    assert one.status == "processed", one.error
    db.execute("SELECT event_id FROM public.$name")
    assert db.fetchall() == [(one.id,)]
''')


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    new = commands.add_parser("new", help="begin a handler of your own: its file, its table, its tests")
    kinds = new.add_subparsers(title="commands", required=True, metavar="COMMAND")
    parser = kinds.add_parser(
        "handler",
        help="write a handler, its migration and its tests",
        description="Writes a handler that takes events of this source and type, a migration with its table, and tests "
        "that pass. No file that is there is touched.",
    )
    parser.add_argument("name", metavar="NAME", help="the handler's name, and its table's, such as refunds")
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="a source of the sources file (default: its first)")
    parser.add_argument("type", nargs="?", metavar="TYPE", help="such as 'charge.*' (default: the most common one)")
    parser.set_defaults(run=_new)


def _new(options: argparse.Namespace) -> int:
    sources = load_sources(Config.from_environ(os.environ).sources_file)
    name, source = options.name, options.source or next(iter(sources), "")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name.startswith(("test_", "conftest")):
        raise PosternError(f"'{name}' is no name for a handler's module and table: write it like `paid_invoices`.")
    if source not in sources:
        raise unknown(source, sources)
    type = options.type or samples.default_type(sources[source].provider)
    if not _TYPE.fullmatch(type):
        raise PosternError(f"'{type}' is no event type: write it as the provider does, such as 'invoice.*'.")
    files = written(TEAMS_MIGRATIONS.parents[2], name, source, type)
    print("\n".join(map(str, files)))
    print(
        f"\nIt takes {source} {type}, and its tests pass: .venv/bin/python -m pytest tests/team\n"
        f"Change all three as you need them. Then `make run`, and: postern send {source} {_concrete(type)}"
    )
    return 0


def written(root: Path, name: str, source: str, type: str) -> list[Path]:
    """The files, of the checkout at `root`, which are all new. Raises PosternError where one is there already."""
    handlers = root / "chalicelib" / "handlers"
    texts = {
        handlers / f"{name}.py": _HANDLER,
        handlers / "migrations" / f"{_next_number(handlers / 'migrations'):04}_{name}.sql": _MIGRATION,
        root / "tests" / "team" / f"test_{name}.py": _TEST,
    }
    also = [*(handlers / "migrations").glob(f"*_{name}.sql"), handlers / name]
    if taken := [path for path in [*texts, *also] if path.exists()]:
        raise PosternError(f"{taken[0].relative_to(root)} is there already; give this one another name.")
    values = {"name": name, "source": source, "type": type, "concrete": _concrete(type)}
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.substitute(values), "utf-8")
    (root / "tests" / "team" / "__init__.py").touch()
    return [path.relative_to(root) for path in texts]


def _next_number(migrations: Path) -> int:
    numbers = [int(found[0]) for path in migrations.glob("*.sql") if (found := re.match(r"\d+", path.name))]
    return max(numbers, default=0) + 1


def _concrete(type: str) -> str:
    """One that the pattern takes."""
    return type.replace("*", "created")
