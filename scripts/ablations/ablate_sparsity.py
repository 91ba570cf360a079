"""What drives gates off (DiP-GO, tables 5 and 7), on the demo model: the penalty, or a budget.

    python -m scripts.ablations.ablate_sparsity [--preset published] [--kept 0.2] [--json FILE]

The penalty of weight α, with and without γ, against the budget that falls over a share of the run.
By gradient alone: no gates trade places, and rows that are off repeat the latest prediction.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from dipgo.search.settings import SearchSettings, published
from scripts.ablations.ablation import Variant, ablation_parser, run
from scripts.harness import run_script

ALPHAS = (1.0, 0.1, 0.5, 2.0)
ANNEAL_SHARES = (0.6, 0.8, 1.0)
ITERATIONS = 200
"""Of the default preset, which has no gradient of its own."""


def main(arguments: list[str]) -> None:
    """Runs the variants that are not finished."""
    parser = ablation_parser(__file__, __doc__)
    parser.add_argument("--preset", choices=("published", "default"), default="published")
    options = parser.parse_args(arguments)
    run(variants(options), options)


def variants(options: Namespace) -> tuple[Variant, ...]:
    """The published weight comes first."""
    base = published()
    if options.preset == "default":
        base = replace(SearchSettings(), iterations=ITERATIONS, exchanges=0, reuse_terms=0)
    penalty = replace(base, budget="penalty")
    return (
        *(Variant(f"alpha {alpha:g}", replace(penalty, alpha=alpha)) for alpha in ALPHAS),
        *(
            Variant(f"alpha {alpha:g}, no gamma", replace(penalty, alpha=alpha, gamma=False))
            for alpha in ALPHAS
        ),
        *(
            Variant(f"annealed {share:g}", replace(base, budget="annealed", anneal_share=share))
            for share in ANNEAL_SHARES
        ),
    )


if __name__ == "__main__":
    run_script(main)
