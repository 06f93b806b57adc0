"""`afrcnn recipes`: what ships with the package."""

from __future__ import annotations

from afrcnn.shipped import shipped_recipes


def recipes() -> dict[str, str]:
    """List the recipes that ship, by name.

    `afrcnn train` takes one by its name, or several, of which later ones win where both say something: a network and a
    method, say. A folder in their place is the dataset.

    Examples:
        afrcnn recipes
        afrcnn train squeezenet occluding --data.root photos
        afrcnn train voc07/vgg16_full --data.root VOCdevkit/VOC2007

    Returns:
        By name, what it is.
    """
    return shipped_recipes()


def show(names: dict[str, str]) -> None:
    """Print each name with its line."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    table.add_column("what it is")
    for name, line in names.items():
        table.add_row(escape(name), escape(line))
    Console().print(table)
