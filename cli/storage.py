"""`storage` on the command line: how much room the tables take, which days there are, and what is not well."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from cli import output
from cli.arguments import Commands
from cli.local import operator


def add_commands(commands: Commands, deployed: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "storage",
        parents=[deployed],
        help="show the sizes of tables, partitions and indexes, and how long rows are kept",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_storage)


def _storage(options: argparse.Namespace) -> int:
    report = operator().perform({"action": "storage"})
    print(output.as_json(report) if options.json else "\n\n".join(_sections(report)))
    return 0


def _sections(report: Mapping[str, Any]) -> Iterator[str]:
    sized = ("bytes", "heap_bytes", "index_bytes", "toast_bytes")
    tables = [
        table | {key: _size(table[key]) for key in sized} | {"last_vacuum": _minute(table["last_vacuum"])}
        for table in report["tables"]
    ]
    columns = {
        "name": "TABLE",
        "bytes": "SIZE",
        "heap_bytes": "ROWS TAKE",
        "index_bytes": "INDEXES",
        "toast_bytes": "TOAST",
        "rows": "ROWS (ABOUT)",
        "dead_rows": "DEAD",
        "last_vacuum": "VACUUMED",
    }
    yield output.table(tables, columns)

    partitions = [each | {"next_drop_at": _minute(each["next_drop_at"])[:10]} for each in report["partitions"]]
    columns = {
        "table": "PARTITIONS OF",
        "count": "DAYS",
        "oldest": "OLDEST",
        "newest": "NEWEST",
        "days_ahead": "AHEAD",
        "next_drop": "NEXT TO GO",
        "next_drop_at": "ON",
        "default_rows": "ROWS WITHOUT",
    }
    yield output.table(partitions, columns)

    sizes = {table["name"]: table["bytes"] for table in report["tables"]}
    indexes = [
        index | {"bytes": _size(index["bytes"]), "share": _share(index, sizes), "note": _note(index)}
        for index in report["indexes"]
    ]
    columns = {"name": "INDEX", "table": "OF", "bytes": "SIZE", "share": "SHARE", "scans": "USED", "note": "NOTE"}
    yield output.table(indexes, columns)

    keys, kept = report["dedup_keys"], report["retention"]
    oldest = _minute(keys["oldest"])
    facts = {
        "events": f"{kept['retention_days']} days",
        "dedup keys": f"{kept['dedup_days']} days; there are about {keys['rows']:,}, the oldest of {oldest}",
        "unresolved": f"{kept['unresolved_days']} days; {report['unresolved_kept']:,} are older than the other events",
    }
    yield "Kept for\n" + "\n".join(f"  {name:<11} {value}" for name, value in facts.items())
    if report["warnings"]:
        yield "\n".join(f"! {output.plain(warning)}" for warning in report["warnings"])


def _note(index: Mapping[str, Any]) -> str:
    if not index["valid"]:
        return "invalid"
    return "" if index["scans"] or index["unique"] else "never used"


def _share(index: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    return f"{100 * index['bytes'] / max(sizes.get(index['table'], 0), 1):.0f} %"


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _minute(time: str | None) -> str:
    return time[:16].replace("T", " ") if time else "-"
