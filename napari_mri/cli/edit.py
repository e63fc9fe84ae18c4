"""``edit TOOL``: the correction tools on a label file, with flags grown from each tool's options."""

from __future__ import annotations

import functools
from typing import Any

import click

from napari_mri.cli.flags import flag, picked
from napari_mri.cli.progress import told
from napari_mri.cli.run import check_target, read, write
from napari_mri.core.errors import BadOption
from napari_mri.core.volume import Labels


def _numbers(text: str | None, what: str) -> frozenset[int]:
    try:
        return frozenset(int(part) for part in text.split(",")) if text else frozenset()
    except ValueError:
        raise BadOption(f"{what} takes label values with commas between, not '{text}'.") from None


def _labels(path: str) -> Labels:
    from napari_mri.io.files import load_labels

    return load_labels(path)


def _edit(name: str, source: str, target: str, **rest: Any) -> None:
    with told():
        from napari_mri.edit.guard import Guard
        from napari_mri.edit.tools import find_tool

        tool = find_tool(name)
        check_target(target, *(path for path in (rest.get("scan"), rest.get("other")) if path))
        inside = _numbers(rest["only_inside"], "--only-inside")
        window = rest["window"]
        guard = Guard(_numbers(rest["locked"], "--locked"), inside or None, window=tuple(window) if window else None)
        labels = _labels(source)
        scan = read(rest["scan"], None) if rest.get("scan") else None
        other = _labels(rest["other"]) if rest.get("other") else None
        done = tool(labels, scan=scan, other=other, guard=guard, **picked(tool.knobs, rest))
        changed = done.history[-1].facts.get("changed_voxels", 0) if len(done.history) > len(labels.history) else 0
        click.echo(f"{tool.title}: {changed} voxels changed.", err=True)
        write(done, target)


class _Tools(click.Group):
    """One command a tool, made when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from napari_mri.edit.tools import TOOLS

        return [name.replace("_", "-") for name in TOOLS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from napari_mri.edit.tools import TOOLS

        tool = TOOLS.get(cmd_name.replace("-", "_"))
        if tool is None:
            return None
        params: list[click.Parameter] = [
            click.Argument(["source"], metavar="LABELS"),
            click.Argument(["target"], metavar="OUT"),
            *(flag(knob) for knob in tool.knobs),
            click.Option(["--locked"], metavar="1,2,…", help="Label values that are never changed."),
            click.Option(["--only-inside"], metavar="1,2,…", help="Change only voxels that hold one of these labels."),
            click.Option(["--window"], type=(float, float), metavar="LOW HIGH", help="Change only where the scan's value lies in this range (needs --scan)."),
            click.Option(["--scan"], metavar="FILE", required="scan" in tool.needs, help="The scan on the same grid."),
        ]  # fmt: skip
        if "other" in (*tool.needs, *tool.takes):
            params.append(click.Option(["--other"], metavar="FILE", required="other" in tool.needs, help="Second labels on the same grid."))
        return click.Command(cmd_name, params=params, callback=functools.partial(_edit, tool.name), help=tool.says)


edit = _Tools(name="edit", help="Correct the labels in a file with one tool and write them to OUT (OUT may be the same file).")

COMMANDS = {"edit": edit}
