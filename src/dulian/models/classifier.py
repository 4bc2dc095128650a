"""Networks that classify face crops into ages, genders, or both at once (a joint net names two outputs)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dulian.errors import InferenceError
from dulian.faces import Attribute
from dulian.image import Image, to_tensor
from dulian.models import AgeScores, AttributeScores
from dulian.models.rows import CropSpec, ModelRow
from dulian.runtimes import Session, Tensor


class Classifier:
    """Estimator over one session; the row says which output holds which attribute."""

    def __init__(self, row: ModelRow, session: Session) -> None:
        if row.crop is None:
            raise ValueError(f"{row.name} names no crop")
        self._row = row
        self._session = session
        self.name = row.name
        self.crop: CropSpec = row.crop
        self.max_batch = row.max_batch
        self.provides = frozenset[Attribute](a for a in row.provides if a != "detection")

    def estimate(self, crops: Sequence[Image]) -> AttributeScores:
        """See :class:`dulian.models.AttributeEstimator`.

        Raises:
            InferenceError: The network answered with something that is no probability distribution, or no number.
        """
        row = self._row
        step = max(1, row.max_batch // 2) if row.mirror else row.max_batch
        batches = [self._run(crops[start : start + step]) for start in range(0, len(crops), step)]
        age = female = None
        if row.age_output is not None:
            age = self._ages(batches, row.age_output)
        if row.gender_output is not None:
            female = self._female(batches, row.gender_output)
        return AttributeScores(age, female)

    def _run(self, crops: Sequence[Image]) -> dict[str, Tensor]:
        if not self._row.mirror:
            return self._infer(crops)
        mirrored = [np.ascontiguousarray(crop[:, ::-1]) for crop in crops]
        if self._row.max_batch == 1:
            straight, turned = self._infer(crops), self._infer(mirrored)
            return {name: _average(straight[name], turned[name]) for name in straight}
        both = self._infer([*crops, *mirrored])
        return {name: _average(tensor[: len(crops)], tensor[len(crops) :]) for name, tensor in both.items()}

    def _infer(self, crops: Sequence[Image]) -> dict[str, Tensor]:
        row = self._row
        return self._session.run(to_tensor(crops, colour_order=row.colour_order, mean=row.mean, scale=row.scale))

    def _ages(self, batches: list[dict[str, Tensor]], output: str) -> AgeScores:
        if self._row.age_years:
            years = np.array(self._row.age_years)
            return AgeScores(self._distributions(batches, output, len(years)), years)
        values = self._join(batches, output, 1).astype(np.float64)
        if not np.isfinite(values).all():
            raise InferenceError(f"{self._row.name} answered {output!r} with something that is no number")
        return AgeScores(np.ones(values.shape, np.float32), values)

    def _female(self, batches: list[dict[str, Tensor]], output: str) -> NDArray[np.float64]:
        labels = self._row.gender_labels
        if len(labels) > 1:
            shares = self._distributions(batches, output, len(labels))[:, labels.index("female")]
            return shares.astype(np.float64)
        share = self._join(batches, output, 1)[:, 0].astype(np.float64)
        if not ((share >= 0) & (share <= 1)).all():
            raise InferenceError(f"{self._row.name} answered {output!r} with something that is no probability")
        return share if labels == ("female",) else 1 - share

    def _distributions(self, batches: list[dict[str, Tensor]], output: str, classes: int) -> Tensor:
        joined = self._join(batches, output, classes)
        if not (np.abs(joined.sum(axis=1) - 1.0) < 1e-3).all():  # nor if one is no number
            raise InferenceError(f"{self._row.name} answered {output!r} with something that does not sum to 1")
        return joined

    def _join(self, batches: list[dict[str, Tensor]], output: str, columns: int) -> Tensor:
        return np.concatenate([batch[output].reshape(-1, columns) for batch in batches])


def _average(a: Tensor, b: Tensor) -> Tensor:
    return np.asarray((a + b) / 2, np.float32)
