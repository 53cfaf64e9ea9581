"""``python -m batchscore.samples FOLDER``."""

import sys
from pathlib import Path

import click

from batchscore.errors import printable
from batchscore.samples import write


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def main(folder: Path) -> None:
    """Write the sample reviews into FOLDER as train.parquet, reviews.parquet and reviews.csv."""
    for path in write(folder):
        click.echo(printable(path))


if __name__ == "__main__":
    sys.exit(main())
