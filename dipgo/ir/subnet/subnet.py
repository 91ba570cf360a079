"""The SubNet: a table of which blocks are computed and which reused at every step."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dipgo.common.arguments import checks_arguments
from dipgo.common.errors import DipgoError
from dipgo.common.kinds import SUBNET, check_kind
from dipgo.common.one_line import one_line
from dipgo.ir.fitted import Fitted, check_fitted, fitted_of_provenance
from dipgo.ir.sampler import PriorNoise
from dipgo.ir.subnet.arguments import names_of, numbers_of, read_parts
from dipgo.ir.subnet.file import (
    Document,
    ModelRef,
    PriorNoiseRef,
    SchedulerRef,
    parse_gates,
    parse_scores,
    read_document,
    write_document,
)
from dipgo.ir.subnet.gap_filters import FilteredGaps, GapFilters
from dipgo.ir.subnet.gap_rule import GapRule
from dipgo.ir.subnet.gap_rules import Gaps, check_gaps, read_gaps, write_gaps
from dipgo.ir.subnet.gap_weights import RowWeights, WeightedGaps
from dipgo.ir.subnet.gate_pickle import read_gate_pickle
from dipgo.ir.subnet.rules import (
    check_backup,
    check_blocks,
    check_gates,
    check_prior_noise,
    check_scores,
    check_steps,
)

__all__ = ["GapFilters", "ModelRef", "PriorNoise", "RowWeights", "SchedulerRef", "SubNet"]


@dataclass(frozen=True, slots=True, eq=False)
class SubNet:
    """A table of gates, step × block: 1 computes the block, 0 reuses its last result.

    Attributes:
        num_inference_steps: The number of steps that the scheduler is set to.
        timesteps: The timestep of each row, each once, in the order of the steps.
        blocks: The block of each column: module paths of the denoiser.
        gates: bool[steps, blocks], read-only; row 0 is all on.
        backup: A word for each block that names its result when its gate is 0, such as its last
            `output`; `dipgo.ir.subnet.backups` has all words.
        model: The model that the gates are for.
        scheduler: The scheduler that the timesteps come from.
        scores: The keep-scores f64[steps, blocks] that the gates were chosen by, read-only.
        provenance: How the gates were made.
        prior_noise: The noise that the method which made the gates adds to the latents late in
            the trajectory, if it does.
        reuse: Weights, for each row, of the denoiser's latest predictions, the newest first. The
            prediction of a row whose gates are all 0 is their weighted sum. Each row that
            computes counts as one prediction; of two evaluations in succession at one timestep,
            the second. Without weights the backups decide: with `output`, the prediction is the
            latest one.
        reuse_unconditional: Weights of the same predictions' unconditional halves, which add to
            the sum; no more a row than `reuse` has.
        reuse_filters: Filters in place of weights, for the rows that they name.
        more_gaps: Gap rules besides weights and filters: what further rows that are wholly off
            predict.
        fitted: What the gates and gap rules were fitted for, if their method measures a model.
        gaps: All gap rules: those of `reuse`, of the two fields after it, and `more_gaps`.

    Raises:
        DipgoError: The parts contradict one another.
    """

    num_inference_steps: int
    timesteps: tuple[float, ...]
    blocks: tuple[str, ...]
    gates: NDArray[np.bool_]
    backup: tuple[str, ...]
    model: ModelRef | None = None
    scheduler: SchedulerRef | None = None
    scores: NDArray[np.float64] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    prior_noise: PriorNoise | None = None
    reuse: RowWeights | None = None
    reuse_unconditional: RowWeights | None = None
    reuse_filters: tuple[GapFilters, ...] | None = None
    more_gaps: Gaps = ()
    fitted: Fitted | None = None
    gaps: Gaps = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, value in read_parts(self):
            self._set(name, value)
        check_steps(self.num_inference_steps, self.timesteps)
        check_blocks(self.blocks)
        check_backup(self.backup, self.blocks)
        check_gates(self.gates, self.timesteps, self.blocks, self.backup)
        check_prior_noise(self.prior_noise)
        check_fitted(self.fitted)
        self._set("gates", _read_only(self.gates, np.bool_))
        if self.scores is not None:
            check_scores(self.scores, self.timesteps, self.blocks)
            self._set("scores", _read_only(self.scores, np.float64))
        self._set("gaps", self._all_gaps())
        check_gaps(self.gaps, self.gates)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _all_gaps(self) -> Gaps:
        gaps = self.more_gaps
        if self.reuse_filters is not None:
            gaps = (FilteredGaps(self.reuse_filters), *gaps)
        if self.reuse is not None or self.reuse_unconditional is not None:
            gaps = (WeightedGaps(self.reuse, self.reuse_unconditional), *gaps)
        return gaps

    @classmethod
    @checks_arguments
    def dense(
        cls,
        timesteps: Iterable[float],
        blocks: Iterable[str],
        *,
        num_inference_steps: int,
        backup: str = "output",
        model: ModelRef | None = None,
        scheduler: SchedulerRef | None = None,
    ) -> "SubNet":
        """Returns a SubNet with all gates on: the denoiser as it is.

        Raises:
            DipgoError: The arguments contradict one another.
        """
        steps, names = numbers_of("timesteps", timesteps), names_of("blocks", blocks)
        gates = np.ones((len(steps), len(names)), dtype=np.bool_)
        words = (backup,) * len(names)
        return cls(num_inference_steps, steps, names, gates, words, model, scheduler)

    @classmethod
    @checks_arguments
    def load(cls, path: str | Path) -> "SubNet":
        """Returns the SubNet in a JSON file.

        Raises:
            DipgoError: The file is not a SubNet; the error names the file and the place in it.
        """
        path = Path(path)
        check_kind(path, SUBNET)
        document, gaps = read_document(path)
        try:
            return cls._from_document(document, read_gaps(gaps))
        except DipgoError as error:
            raise DipgoError(
                f"{path.name}, {error.where}",
                found=error.found,
                expected=error.expected,
                remedy=error.remedy,
            ) from None

    @classmethod
    @checks_arguments
    def from_published(
        cls,
        path: str | Path,
        timesteps: Iterable[float],
        *,
        num_inference_steps: int | None = None,
    ) -> "SubNet":
        """Reads a gate pickle that the DiP-GO authors publish, as data: nothing is executed.

        Args:
            path: The pickle, a list with one dictionary a step.
            timesteps: The scheduler's timesteps, one for each item of the pickle.
            num_inference_steps: The scheduler's number of steps; by default that of `timesteps`.

        Returns:
            The SubNet. A gate is 1 where keep score ≥ reuse score; `scores` are the keep scores.

        Raises:
            DipgoError: The file is missing or cut short, holds anything but plain data and
                tensors (the refused global is named), or is of another structure.
        """
        path, steps = Path(path), numbers_of("timesteps", timesteps)
        published = read_gate_pickle(path)
        return cls(
            num_inference_steps=len(steps) if num_inference_steps is None else num_inference_steps,
            timesteps=steps,
            blocks=published.blocks,
            gates=published.gates,
            backup=("output",) * len(published.blocks),
            scores=published.scores,
            provenance={"imported_from": path.name},
        )

    @checks_arguments
    def save(self, path: str | Path) -> None:
        """Writes JSON in one step; the same SubNet gives the same bytes.

        Raises:
            DipgoError: The file cannot be written, or `provenance` has a value that JSON lacks.
        """
        write_document(Path(path), self._to_document(), write_gaps(self.gaps))

    @property
    def kept(self) -> float:
        """The share of gates that are on, 0 to 1 (not weighted by MACs)."""
        return float(self.gates.mean())

    def without_reuse(self) -> "SubNet":
        """Returns the SubNet without gap rules: the backups decide for rows that are off."""
        return self.with_gaps(())

    def with_gaps(self, gaps: Iterable[GapRule], **changes: Any) -> "SubNet":
        """Returns the SubNet with these gap rules in place of its own.

        Args:
            gaps: The rules, no two of one kind.
            changes: Other fields and their new values.

        Raises:
            DipgoError: The parts contradict one another.
        """
        return replace(self, **_gap_fields(gaps), **changes)

    @property
    def uses_halves(self) -> bool:
        """Whether a gap rule reads unconditional halves of predictions."""
        return any(rule.halves for rule in self.gaps)

    @property
    def fitted_for(self) -> Fitted | None:
        """What it was fitted for: `fitted`, or what older files say in their provenance."""
        return self.fitted or fitted_of_provenance(self.provenance)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SubNet):
            return NotImplemented
        return (self._to_document(), write_gaps(self.gaps)) == (
            other._to_document(),
            write_gaps(other.gaps),
        )

    def __repr__(self) -> str:
        """Returns a line: a table of gates is long, and `inspect` shows it."""
        facts = [f"{self.num_inference_steps} steps", f"{len(self.blocks)} blocks"]
        facts.append(f"{self.kept:.4f} of the gates on")
        facts += [record.class_name for record in (self.model, self.scheduler) if record]
        return one_line(f"<SubNet: {', '.join(facts)}>")

    def __hash__(self) -> int:
        return hash((self.num_inference_steps, self.timesteps, self.blocks, self.gates.tobytes()))

    @classmethod
    def _from_document(cls, document: Document, gaps: Gaps) -> "SubNet":
        blocks, backup, scores = tuple(document.blocks), document.backup, document.scores
        noise = document.prior_noise
        return cls(
            num_inference_steps=document.num_inference_steps,
            timesteps=tuple(document.timesteps),
            blocks=blocks,
            gates=parse_gates(document.gates, blocks),
            backup=(backup,) * len(blocks) if isinstance(backup, str) else tuple(backup),
            model=document.model,
            scheduler=document.scheduler,
            scores=None if scores is None else parse_scores(scores, blocks),
            provenance=document.provenance or {},
            prior_noise=noise if noise is None else PriorNoise(noise.scale, noise.below),
            fitted=document.fitted,
            **_gap_fields(gaps),
        )

    def _to_document(self) -> Document:
        same = len(set(self.backup)) == 1
        return Document(
            num_inference_steps=self.num_inference_steps,
            timesteps=[int(t) if t.is_integer() else t for t in self.timesteps],
            blocks=list(self.blocks),
            gates=["".join("01"[int(gate)] for gate in row) for row in self.gates],
            model=self.model,
            scheduler=self.scheduler,
            backup=self.backup[0] if same else list(self.backup),
            scores=None if self.scores is None else self.scores.tolist(),
            provenance=self.provenance or None,
            prior_noise=PriorNoiseRef(**asdict(self.prior_noise)) if self.prior_noise else None,
            fitted=self.fitted,
        )


def _gap_fields(gaps: Iterable[GapRule]) -> dict[str, Any]:
    """Returns the SubNet's fields that make these rules."""
    fields: dict[str, Any] = {
        **dict.fromkeys(("reuse", "reuse_unconditional", "reuse_filters")),
        "more_gaps": (),
    }
    for rule in gaps:
        if isinstance(rule, WeightedGaps):
            fields |= {"reuse": rule.weights, "reuse_unconditional": rule.unconditional}
        elif isinstance(rule, FilteredGaps):
            fields["reuse_filters"] = rule.entries
        else:
            fields["more_gaps"] += (rule,)
    return fields


def _read_only(values: ArrayLike, dtype: type[np.generic]) -> NDArray[Any]:
    """Returns a copy of `values` that cannot be written to."""
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array
