"""Which search, and which of its parts, find the better SubNet, on the demo model.

    python -m scripts.ablations.ablate_search [--only NAME…] [--kept 0.2] [--json FILE]

The first line is the default: regular rows, exchange, filters for reuse. In lines of "weights"
these stay weights and are trained. "gradient" is a descent with the default settings, "published"
the paper's; what their names go on with is changed.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from dipgo.search.settings import Parameters, SearchSettings, Selection, published
from scripts.ablations.ablation import Variant, ablation_parser, run
from scripts.benchmarks.comparison.make import FINER
from scripts.harness import run_script

ITERATIONS = 200
DEFAULT, PUBLISHED = SearchSettings(), published()
GRADIENT = replace(DEFAULT, iterations=ITERATIONS, exchanges=0)
PLAIN = replace(GRADIENT, reuse_terms=0)
PARAMETERS: tuple[Parameters, ...] = ("pruner-identity", "pruner-shared", "free")
SELECTIONS: tuple[Selection, ...] = ("bisection", "sweep")


def main(arguments: list[str]) -> None:
    """Runs the variants that are not finished."""
    options = ablation_parser(__file__, __doc__).parse_args(arguments)
    run(variants(options), options)


def variants(_: Namespace) -> tuple[Variant, ...]:
    """All of them; the quick ones first."""
    return (*_stages(), *_reuse(), *_blocks(), *_gradients(), *_published())


def _stages() -> tuple[Variant, ...]:
    regular = replace(DEFAULT, exchanges=0)
    return (
        Variant("default", DEFAULT),
        Variant("random", DEFAULT, rival="random"),
        Variant("regular rows", replace(regular, reuse_terms=0)),
        Variant("regular rows, reuse", regular),
    )


def _reuse() -> tuple[Variant, ...]:
    """Without terms the latest prediction is repeated; with one its size is fitted."""
    weights = replace(DEFAULT, reuse_filter=0)
    return (
        *(Variant(f"filters of {n}", replace(DEFAULT, reuse_filter=n)) for n in (1, 5)),
        Variant("weights", weights),
        Variant("weights, fitted only", replace(weights, reuse_iterations=0)),
        Variant("weights, halves alike", replace(weights, reuse_halves=False)),
        *(Variant(f"weights of {n}", replace(weights, reuse_terms=n)) for n in (0, 1, 2, 3, 6)),
    )


def _blocks() -> tuple[Variant, ...]:
    return (
        Variant("backup delta", DEFAULT, backup="delta"),
        Variant("finer blocks", DEFAULT, blocks=FINER),
        Variant("finer blocks, backup delta", DEFAULT, blocks=FINER, backup="delta"),
    )


def _gradients() -> tuple[Variant, ...]:
    """With weights for reuse, then without: what the gradient alone finds, chosen in other ways."""
    then = replace(GRADIENT, exchanges=DEFAULT.exchanges)
    straight = replace(PLAIN, estimator="straight-through")
    return (
        Variant("gradient, reuse", GRADIENT),
        Variant("gradient, exchange, reuse", then),
        Variant("gradient, finer blocks, reuse", GRADIENT, blocks=FINER),
        Variant("gradient", PLAIN),
        *(Variant(f"gradient, {one}", replace(PLAIN, selection=one)) for one in SELECTIONS),
        Variant("gradient, straight-through", straight),
        Variant("gradient, pruner", replace(PLAIN, parameters="pruner")),
    )


def _published() -> tuple[Variant, ...]:
    return (
        Variant("published", PUBLISHED),
        *(Variant(f"published, {one}", replace(PUBLISHED, parameters=one)) for one in PARAMETERS),
        Variant("published, relaxed", replace(PUBLISHED, estimator="relaxed")),
        Variant("published, fill", replace(PUBLISHED, selection="fill")),
        Variant("published, sweep", replace(PUBLISHED, selection="sweep")),
    )


if __name__ == "__main__":
    run_script(main)
