"""Options of `search` that are fields of its settings, on top of a preset."""

from __future__ import annotations

from argparse import Namespace

from dipgo.common.cli import Parser
from dipgo.common.options import add_options, read_settings
from dipgo.search.request import SEARCH
from dipgo.search.settings import SearchSettings, published


def add_search_arguments(parser: Parser) -> None:
    """Adds `--preset` and an option for every field of `SearchSettings`."""
    parser.group(SEARCH).add_argument(
        "--preset",
        choices=("default", "published"),
        default="default",
        help="what the other options stand at: the measured best, or the paper's",
    )
    add_options(parser, SearchSettings)


def search_settings(options: Namespace) -> SearchSettings:
    """Returns the preset with the options of the command line in place of its own.

    Raises:
        DipgoError: An option has a wrong value.
    """
    preset = published() if options.preset == "published" else SearchSettings()
    return read_settings(options, SearchSettings, base=preset)
