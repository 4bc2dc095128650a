"""The few figures that a profile is known by, as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTHING = "–"


def headline(report: Mapping[str, Any]) -> dict[str, str]:
    """Label and figure, the same labels for every report of one run."""
    detection, negatives = report["detection"], report["negatives"]["photos"]
    gender, age, sure = report["gender"], report["age"], report["gender_probability"]
    everybody, adults = gender.get("all", {}), gender.get("adults", {})
    aged = age.get("all", {})
    rows = {
        "faces found, at least 32 px high": share(detection["recall_32"]),
        "detections that are faces": share(detection["precision"]),
        "photos without a face in which one is found": _count(negatives),
        "gender right": share(everybody.get("right")),
        "gender right, adults": share(adults.get("right")),
        "women minus men": points(everybody.get("women_minus_men")),
        "gender answered": percent(everybody.get("answered")),
        "gender right when answered": share(everybody.get("when_answering")),
        "gender right, surest 85 %": share(sure.get("right_at_85")),
        "gender calibration error": number(sure.get("calibration_error"), 3),
        "age error, years": years(aged.get("error")),
        "age bucket right": share(aged.get("bucket_exact")),
        "age bucket right or next": share(aged.get("bucket_one_off")),
        "90 % interval holds": share(aged.get("interval_holds")),
        "90 % interval, years wide": years(aged.get("interval_width")),
    }
    for name, title in (("by_tenths", "cross-validated"), ("by_source", "source left out")):
        held_out = report.get("held_out", {}).get(name)
        if held_out:
            rows |= {f"{title}: {label}": figure for label, figure in held_out_rows(held_out).items()}
    return rows


def held_out_rows(held_out: Mapping[str, Any]) -> dict[str, str]:
    """The figures on faces that the tables were not fitted to."""
    return {
        "gender right": share(held_out["gender"]),
        "gender right, adults": share(held_out["gender_adults"]),
        "women minus men": points(held_out["women_minus_men"]),
        "gender answered": percent(held_out["answered"]),
        "gender right when answered": share(held_out["when_answering"]),
        "gender right, surest 85 %": share(held_out.get("right_at_85")),
        "gender calibration error": number(held_out.get("calibration_error"), 3),
        "age error, years": years(held_out["error"]),
        "age bucket right": share(held_out["bucket_exact"]),
        "age bucket right or next": share(held_out["bucket_one_off"]),
        "90 % interval holds": share(held_out["interval_holds"]),
        "90 % interval, years wide": years(held_out["interval_width"]),
    }


def share(figure: Mapping[str, float] | None) -> str:
    """A share in per cent, with its interval."""
    if figure is None:
        return NOTHING
    return f"{100 * figure['value']:.1f} [{100 * figure['low']:.1f}–{100 * figure['high']:.1f}]"


def years(figure: Mapping[str, float] | None) -> str:
    """Years, with their interval."""
    return NOTHING if figure is None else f"{figure['value']:.2f} [{figure['low']:.2f}–{figure['high']:.2f}]"


def percent(value: float | None) -> str:
    """A share without an interval."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference of shares."""
    return NOTHING if value is None else f"{100 * value:+.1f}"


def number(value: float | None, digits: int) -> str:
    """A plain number."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def _count(group: Mapping[str, int]) -> str:
    return f"{group['with_a_face']} of {group['pictures']}" if group["pictures"] else NOTHING
