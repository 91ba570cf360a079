"""Which loss a search descends (DiP-GO, table 6), on the demo model.

    python -m scripts.ablations.ablate_loss [--preset published] [--kept 0.2] [--json FILE]

The published preset compares decoded pictures, but for the logarithm of the squared error, which
is of latents. The default preset searches by exchange, whose distances are all of latents.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from dipgo.search.settings import Loss, SearchSettings, published
from scripts.ablations.ablation import Variant, ablation_parser, run
from scripts.harness import run_script

LOSSES: tuple[Loss, ...] = ("l1", "l2", "ssim", "ssim+l1")


def main(arguments: list[str]) -> None:
    """Runs the variants that are not finished."""
    parser = ablation_parser(__file__, __doc__)
    parser.add_argument("--preset", choices=("published", "default"), default="published")
    options = parser.parse_args(arguments)
    run(variants(options), options)


def variants(options: Namespace) -> tuple[Variant, ...]:
    """One a loss."""
    default = options.preset == "default"
    base = SearchSettings() if default else published()
    on_latents = replace(base, loss="log-mse", compare="latents")
    others = {
        loss: replace(base, loss=loss, compare="latents" if default else "images")
        for loss in LOSSES
    }
    return (
        Variant(f"{options.preset}, log-mse", on_latents),
        *(Variant(f"{options.preset}, {loss}", one) for loss, one in others.items()),
    )


if __name__ == "__main__":
    run_script(main)
