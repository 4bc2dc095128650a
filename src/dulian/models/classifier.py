"""Networks that classify face crops into ages, genders, or both at once (a joint net names two outputs)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
        self.crop: CropSpec = row.crop
        self.max_batch = row.max_batch
        self.provides = frozenset[Attribute](a for a in row.provides if a != "detection")

    def estimate(self, crops: Sequence[Image]) -> AttributeScores:
        """See :class:`dulian.models.AttributeEstimator`.

        Raises:
            InferenceError: The network answered with something that is no probability distribution.
        """
        row = self._row
        batches = [self._run(crops[start : start + row.max_batch]) for start in range(0, len(crops), row.max_batch)]
        age = female = None
        if row.age_output is not None:
            age = AgeScores(self._join(batches, row.age_output, len(row.age_years)), np.array(row.age_years))
        if row.gender_output is not None:
            genders = self._join(batches, row.gender_output, len(row.gender_labels))
            female = genders[:, row.gender_labels.index("female")].astype(np.float64)
        return AttributeScores(age, female)

    def _run(self, crops: Sequence[Image]) -> dict[str, Tensor]:
        row = self._row
        return self._session.run(to_tensor(crops, colour_order=row.colour_order, mean=row.mean, scale=row.scale))

    def _join(self, batches: list[dict[str, Tensor]], output: str, classes: int) -> Tensor:
        joined = np.concatenate([batch[output].reshape(-1, classes) for batch in batches])
        if not (np.abs(joined.sum(axis=1) - 1.0) < 1e-3).all():  # nor if one is no number
            raise InferenceError(f"{self._row.name} answered {output!r} with something that does not sum to 1")
        return joined
