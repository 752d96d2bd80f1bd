"""Pages that share a menu, written into one folder from the templates under reports/."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simclic import files
from simclic.errors import InputError
from simclic.experiment import Exhibit
from simclic.report import formats


class Site:
    """Writes pages that share a menu."""

    def __init__(self, title: str, exhibits: Sequence[Exhibit], folder: Path, source: Path) -> None:
        self.title, self.folder, self.source = title, folder, source
        self.html, self.text = formats.create_environments(source / "reports" / "templates")
        menu = [("index.html", "Overview"), *((f"{e.name}.html", e.title) for e in exhibits)]
        self.menu = [*menu, ("claims.html", "Claims"), ("choices.html", "Choices"), ("encoders.html", "Encoders")]

    def write_page(self, name: str, template: str, **values: Any) -> Path:
        """Write one page; `name` is its path in the folder."""
        site = {"site": self.title, "menu": self.menu, "current": name, "up": "../" * name.count("/")}
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        files.write_bytes(path, self.html.get_template(template).render(site | values).encode(errors="backslashreplace"))
        return path


def check_source(source: Path) -> None:
    """Raise InputError if the source tree with baselines/ and reports/ is not there."""
    if not (source / "baselines").is_dir() or not (source / "reports" / "templates").is_dir():
        raise InputError(
            f"{source}: baselines/ and reports/ are not there; install simclic from its source tree with pip install -e"
        )
