"""The study of relu'(0): the result, and its report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonsmooth.report.files import write_report
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import format_share
from nonsmooth.studies.intervals import Mean, Proportion, proportion_interval
from nonsmooth.studies.relu_prime_protocol import Authors, Protocol

__all__ = ["Accuracy", "ReluPrimeStudy", "Volume"]

TITLES = {
    "depth": "relu'(0) = 0 or 1, by hidden layers (width {width}, batches of {batch_size})",
    "width": "relu'(0) = 0 or 1, by units of each of 3 hidden layers (batches of {batch_size})",
    "batch size": "relu'(0) = 0 or 1, by images a batch (3 hidden layers of {width})",
    "network": "relu'(0) = 0 or 1, by network (mlp: 3 layers of {width}; cnn: 2 convolutions; batches of {batch_size})",
    "max-pool": "Which tied entry of a max-pool gets the derivative (cnn, batches of {batch_size})",
    "clamp": "Slope 0 or 1 at both bounds of a clamp (mlp: 3 layers of {width}, batches of {batch_size})",
}
"""The titles of the tables of volumes."""


@dataclass(frozen=True)
class Volume:
    """How often two choices at a kink give different gradients, of random initialisations; `sampled`.

    Attributes:
        table: the table it stands in, and `label` its row there.
        precision: the number format.
        configuration: of its runs, but for the seeds.
        met: initialisations for which some element is at a kink on some batch.
        different: those for which the gradients differ on some batch.
        first_weight: those for which they differ in the weight of the first layer.
        bifurcation: those for which they differ also without rounding.
        compensation: those for which only rounding tells them apart.
        undecided: those for which neither can be said.
        change: the largest relative change of a gradient that was seen, without rounding, up to the first bifurcation.
    """

    table: str
    label: str
    precision: str
    configuration: Mapping[str, Any]
    met: int
    different: Proportion
    first_weight: int
    bifurcation: Proportion
    compensation: int
    undecided: int
    change: float


@dataclass(frozen=True)
class Accuracy:
    """Test accuracy after training with relu'(0) = alpha, over seeds; `sampled`.

    Attributes:
        label: the network and its precision.
        batch_norm: whether it has batch norm.
        alpha: relu'(0).
        configuration: of its runs, but for the seed.
        accuracy: the share of test images named rightly.
        against: the accuracy less that of relu'(0) = `reference` by the same seed.
        reference: the alpha that the runs are compared with.
        same: runs that end in the very parameters of `reference`, bit by bit.
        met: the share of steps at which some unit was at its kink.
        broken: runs whose last loss is not finite.
    """

    label: str
    batch_norm: bool
    alpha: float
    configuration: Mapping[str, Any]
    accuracy: Mean
    against: Mean
    reference: float
    same: int
    met: float
    broken: int


@dataclass(frozen=True)
class ReluPrimeStudy(Reported):
    """The volumes and the accuracies, measured in this run; the authors' counts stand beside them, as theirs."""

    format_version: int
    protocol: Protocol
    framework: str
    volumes: tuple[Volume, ...]
    accuracies: tuple[Accuracy, ...]
    authors: tuple[Authors, ...]
    seconds: float

    def volume(self, table: str, label: str, precision: str) -> Volume:
        """Give a volume by its table, its row and its precision."""
        wanted = (table, label, precision)
        return next(v for v in self.volumes if (v.table, v.label, v.precision) == wanted)

    def document(self) -> Document:
        """Lay the study out for reading: what was found, the tables, the authors' counts, and the settings."""
        p = self.protocol
        parts: list[str | Table] = [self._story()]
        if self.volumes:
            parts += [self._volumes(table) for table in dict.fromkeys(v.table for v in self.volumes)]
            parts += [*self._apart(), *map(_authors, self.authors)]
        parts += [self._training(label) for label in dict.fromkeys(a.label for a in self.accuracies)]
        trained = f"Training: {p.epochs} epochs of batches of {p.training_batch}, rate {p.rate:g}, {p.seeds} seeds."
        parts.append(
            f"Setting: {p.data}, {self.framework}, seed {p.seed}; every interval has confidence {p.confidence:g}.\n"
            f"{trained if self.accuracies else 'No training.'} The study took {self.seconds:.0f} s (measured)."
        )
        return Document("The influence of relu'(0), with the right backward pass", tuple(parts))

    def _story(self) -> str:
        """Say in a few lines what was found."""
        lines = []
        for precision in dict.fromkeys(v.precision for v in self.volumes):
            rows = [v for v in self.volumes if v.table == "depth" and v.precision == precision]
            if rows:
                counts = [v.different.count for v in rows]
                span = " to ".join(dict.fromkeys((f"{min(counts):,}", f"{max(counts):,}")))
                lines.append(
                    f"{precision}: relu'(0) = 0 or 1 changes some gradient for {span} of {rows[0].different.trials:,} "
                    "initialisations, by depth (sampled)."
                )
        structural = [v for v in self.volumes if v.precision == "float64" and v.bifurcation.count]
        for v in structural:
            lines.append(
                f"float64 is no cure for {v.table} {v.label}: {v.bifurcation.count} of {v.bifurcation.trials} bifurcate, "
                f"by up to {format_share(v.change)} of the gradient."
            )
        if self.accuracies:
            others = [a for a in self.accuracies if a.alpha != a.reference]
            apart = [a for a in others if a.same < a.accuracy.number]
            clear = [a for a in apart if a.against.low > 0 or a.against.high < 0]
            lines.append(
                f"Training: of {len(others)} settings {len(others) - len(apart)} end in the same bits as "
                f"relu'(0) = {self.accuracies[0].reference:g}, seed by seed;\nof the other {len(apart)} the accuracy differs "
                f"beyond its interval in {len(clear)} (each interval by itself, sampled)."
            )
        return "\n".join(lines)

    def _volumes(self, table: str) -> Table:
        """Give one table of volumes: how many initialisations differ, by precision."""
        rows = [v for v in self.volumes if v.table == table]
        precisions = list(dict.fromkeys(v.precision for v in rows))
        labels = list(dict.fromkeys(v.label for v in rows))
        cells = [[_count(self.volume(table, label, p).different) for p in precisions] for label in labels]
        numbers = sorted({v.different.trials for v in rows})
        return Table(
            TITLES[table].format(width=self.protocol.width, batch_size=self.protocol.batch_size),
            (table, *precisions),
            tuple((label, *cells[k]) for k, label in enumerate(labels)),
            f"initialisations of {' or '.join(f'{n:,}' for n in numbers)} whose gradients differ on some batch, and the "
            f"exact binomial interval of the share, in percent (sampled).",
        )

    def _apart(self) -> Iterator[Table]:
        """Give the rows in which not every kink that was met is a bifurcation seen in the first weight."""
        rows = [v for v in self.volumes if v.met and len({v.met, v.first_weight, v.bifurcation.count}) > 1]
        if rows:
            yield Table(
                "Where meeting a kink, differing, and being wrong over the reals fall apart (sampled)",
                ("setting", "precision", "met", "differ", "in first weight", "bifurcate", "compensate", "?", "change"),
                tuple(
                    (
                        f"{v.table}: {v.label}", v.precision, v.met, v.different.count, v.first_weight,
                        v.bifurcation.count, v.compensation, v.undecided, format_share(v.change, rounding=1e-12),
                    )
                    for v in rows
                ),
                "bifurcate: they differ also without rounding; compensate: only rounding tells them apart; ?: undecided; "
                "change: the largest, without rounding, relative to the gradient.",
            )  # fmt: skip

    def _training(self, label: str) -> Table:
        """Give the table of one trained network."""
        rows = [a for a in self.accuracies if a.label == label]
        return Table(
            f"Test accuracy after training: {label} (mean of {rows[0].accuracy.number} seeds, Student's interval; sampled)",
            ("batch norm", "relu'(0)", "accuracy, %", f"less that of {rows[0].reference:g}", "same bits", "steps at a kink"),
            tuple(
                (
                    "yes" if a.batch_norm else "no", a.alpha, _mean(a.accuracy), _mean(a.against),
                    f"{a.same} of {a.accuracy.number}",
                    format_share(a.met) + (f", {a.broken} not finite" if a.broken else ""),
                )
                for a in rows
            ),
            "less that of: the mean difference by seed, in points.",
        )  # fmt: skip

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and the pictures into a folder, made if need be; give what was written."""
        from nonsmooth.studies.relu_prime_picture import pictures

        return write_report(folder, self, pictures(self))


def _count(found: Proportion) -> str:
    """Print a count with the interval of its share."""
    return f"{found.count:,}: {_percent(found.low)} to {_percent(found.high)}"


def _percent(share: float) -> str:
    """Print a share in percent, without the sign."""
    percent = 100 * share
    return f"{percent:.0f}" if percent in (0, 100) else f"{percent:.1f}"


def _mean(found: Mean) -> str:
    """Print a mean in percent, with half the length of its interval."""
    half, value = 100 * (found.high - found.low) / 2, round(100 * found.value, 2) + 0.0
    return f"{value:.2f}" + (f" ± {half:.2f}" if found.number > 1 else "")


def _authors(authors: Authors) -> Table:
    """Lay out the counts of the authors, with intervals."""
    n = authors.initialisations
    return Table(
        f"The authors' counts, by {authors.axis}: another setting, not to be compared number by number",
        (authors.axis, *authors.counts),
        tuple(
            (str(value), *(_count(proportion_interval(counts[k], n)) for counts in authors.counts.values()))
            for k, value in enumerate(authors.values)
        ),
        f"of {n:,} initialisations; {authors.setting}; their data, our intervals, in percent."
        + (f" {authors.note}" if authors.note else ""),
    )
