"""Labels in the browser stand where the server's drawings have them: the same cases through both."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Page
from tests.unit.test_layout import face, overlap

from dulian.faces import BoundingBox
from dulian.layout import LabelledFace, Placement, eye_zones, place_labels

PLACE = """async (scenes) => {
  const { placeLabels } = await import("/static/layout.js");
  return scenes.map(({ frame, faces, options }) => placeLabels(frame, faces, options));
}"""
ARRANGE = """async ({ frame, subjects }) => {
  const { arrange } = await import("/static/labels.js");
  const measure = (lines, px) => [Math.ceil(0.6 * px * Math.max(...lines.map((line) => line.length))),
                                  Math.ceil(1.6 * px * lines.length)];
  return [...arrange(frame, subjects, measure)];
}"""


@dataclass
class Scene:
    frame: tuple[int, int]
    faces: list[LabelledFace]
    gap_px: float = 0.0
    cover_faces: bool = True
    taken: tuple[Placement, ...] = ()

    def placed(self) -> list[Any]:
        return [
            as_json(spot)
            for spot in place_labels(
                self.frame, self.faces, gap_px=self.gap_px, cover_faces=self.cover_faces, taken=self.taken
            )
        ]

    def as_json(self) -> dict[str, Any]:
        faces = [
            {"box": list(one.box), "eyes": one.eyes and [list(eye) for eye in one.eyes], "sizes": one.label_sizes_wh}
            for one in self.faces
        ]
        taken = [as_json(spot) for spot in self.taken]
        options = {"gapPx": self.gap_px, "coverFaces": self.cover_faces, "taken": taken}
        return {"frame": self.frame, "faces": faces, "options": options}


def as_json(spot: Placement | None) -> dict[str, Any] | None:
    if spot is None:
        return None
    leader = spot.leader and [list(point) for point in spot.leader]
    return {"label": list(spot.label), "sizeIndex": spot.size_index, "leader": leader}


def random_face(chance: random.Random, frame: tuple[int, int], most: float) -> LabelledFace:
    width, height = chance.uniform(4, most), chance.uniform(4, most)
    x, y = chance.uniform(-width, frame[0]), chance.uniform(-height, frame[1])
    sizes = tuple((chance.randint(8, 160), chance.randint(8, 40)) for _ in range(chance.randint(0, 3)))
    made = face(x, y, x + width, y + height, eyes=chance.random() < 0.6)
    return LabelledFace(made.box, made.eyes, sizes)


def random_scene(chance: random.Random, count: int) -> Scene:
    frame = chance.randint(20, 900), chance.randint(20, 700)
    faces = [random_face(chance, frame, 200 if count < 20 else 60) for _ in range(count)]
    taken: tuple[Placement, ...] = ()
    if chance.random() < 0.3:
        spots = place_labels(frame, [random_face(chance, frame, 100) for _ in range(4)])
        taken = tuple(spot for spot in spots if spot)
    return Scene(frame, faces, chance.choice((0.0, 3.0)), chance.random() < 0.7, taken)


def grid_scene(chance: random.Random) -> Scene:
    """Boxes on whole pixels, some of them outside the frame or twice: spots tie, and edges meet exactly."""
    frame, step = (chance.randint(60, 900), chance.randint(60, 700)), chance.choice((1, 5, 10, 16))
    faces = []
    for _ in range(chance.choice((5, 10, 20, 50))):
        width, height = (step * chance.randint(1, 80 // step) for _ in "xy")
        x, y = (step * chance.randint(-80 // step - 2, side // step + 2) for side in frame)
        size = chance.choice((20, 40, 60, 120)), chance.choice((10, 16, 20))
        faces.append(face(x, y, x + width, y + height, size, eyes=chance.random() < 0.5))
    return Scene(frame, [*faces, *faces[:2]], chance.choice((0.0, 1.0, 3.0, 4.0)), chance.random() < 0.8)


def lattice_scene(chance: random.Random) -> Scene:
    """A regular crowd: spots lie equally much on faces but for the last bit, and so the order of sums decides."""
    pitch, columns, rows = chance.choice((24.3, 30.1, 33.3, 36.7)), chance.randint(4, 9), chance.randint(4, 6)
    side = pitch * chance.choice((0.8, 0.95, 1.1))
    corners = [(20 + i * pitch, 20 + j * pitch) for i in range(columns) for j in range(rows)]
    faces = [face(x, y, x + side, y + side, (chance.choice((40, 60, 90)), 16)) for x, y in corners]
    return Scene((int(columns * pitch + 60), int(rows * pitch + 60)), faces, chance.choice((0.0, 2.5, 3.0)))


def two_ways_round() -> Scene:
    """A face whose label may stand above or below at the same distance but for the last bit of a square root."""
    walls = (
        (289, 222, 406, 243),
        (285, 160, 290, 221),
        (411, 160, 426, 221),
        (289, 138, 423, 159),
        (385, 211, 407, 224),
    )
    own = face(298.3, 159.9, 404.0, 221.10000000000002, (44, 18))
    return Scene((640, 480), [own], gap_px=3.0, taken=tuple(Placement(BoundingBox(*wall)) for wall in walls))


def scenes() -> list[Scene]:
    chance = random.Random(20261129)
    made = [random_scene(chance, chance.randint(0, 14)) for _ in range(300)]
    made += [random_scene(chance, 50) for _ in range(12)]
    made += [grid_scene(chance) for _ in range(80)]
    made += [lattice_scene(chance) for _ in range(40)]
    halves = [face(x + 0.5, 80.5, x + 60.5, 140.5, (81, 21), eyes=True) for x in range(0, 600, 61)]
    made += [
        Scene((640, 480), [face(100, 0, 200, 100)]),
        Scene((640, 480), halves, gap_px=2.5),
        Scene((640, 480), [*halves, *halves]),
        Scene((60, 40), [face(5, 5, 55, 35, (120, 20), (50, 12))]),
        Scene((640, 480), []),
        two_ways_round(),
    ]
    return made


@pytest.fixture
def anywhere(page: Page, service_url: str) -> Page:
    """A page of the service's origin, from which its modules can be imported."""
    page.goto(f"{service_url}/docs")
    return page


def test_the_browser_places_labels_where_python_does(anywhere: Page) -> None:
    cases = scenes()
    answers = anywhere.evaluate(PLACE, [case.as_json() for case in cases])
    seen = {"placed": 0, "led": 0, "left out": 0}
    for number, (case, answer) in enumerate(zip(cases, answers, strict=True)):
        expected = case.placed()
        assert len(answer) == len(expected)
        for got, wanted in zip(answer, expected, strict=True):
            assert (got is None) == (wanted is None), number
            if got is None or wanted is None:
                seen["left out"] += 1
                continue
            assert got["sizeIndex"] == wanted["sizeIndex"], number
            assert got["label"] == pytest.approx(wanted["label"], abs=1e-9), number
            assert (got["leader"] is None) == (wanted["leader"] is None), number
            for point, same in zip(got["leader"] or [], wanted["leader"] or [], strict=True):
                assert point == pytest.approx(same, abs=1e-9), number
            seen["placed"] += 1
            seen["led"] += got["leader"] is not None
    assert min(seen.values()) > 100, seen  # every outcome is among the cases


def subject(number: int, box: BoundingBox, reason: str = "") -> dict[str, Any]:
    return {
        "id": number,
        "box": list(box),
        "eyes": None,
        "pen": {"line": 2, "halo": 1, "text": 14, "least": 9},
        "caption": {"full": "Female, 31 (26–37)", "short": "F 31", "reason": reason},
    }


def arranged(page: Page, frame: tuple[int, int], boxes: list[BoundingBox], reason: str = "") -> dict[int, Any]:
    subjects = [subject(i, box, reason) for i, box in enumerate(boxes)]
    found = dict(page.evaluate(ARRANGE, {"frame": frame, "subjects": subjects}))
    labels = [BoundingBox(*one["placement"]["label"]) for one in found.values()]
    zones = [zone for box in boxes for zone in eye_zones(box, None)]
    for i, label in enumerate(labels):
        assert label.x1 >= 0
        assert label.y1 >= 0
        assert label.x2 <= frame[0]
        assert label.y2 <= frame[1]
        assert not any(overlap(label, other) for other in labels[:i])
        assert not any(overlap(label, zone) for zone in zones)
    return found


def test_a_label_says_all_while_there_is_room(anywhere: Page) -> None:
    found = arranged(anywhere, (640, 480), [BoundingBox(200, 150, 300, 280)], "too dark")
    assert found[0]["lines"] == ["Female, 31 (26–37)", "too dark"]
    assert found[0]["textPx"] == 14


def test_in_a_crowd_labels_get_shorter_and_at_last_a_number(anywhere: Page) -> None:
    boxes = [BoundingBox(x, y, x + 34, y + 40) for y in range(4, 440, 46) for x in range(4, 600, 46)]
    few = arranged(anywhere, (640, 480), boxes[:9], "too dark")
    assert len(few) == 9
    many = arranged(anywhere, (640, 480), boxes, "too dark").values()
    assert not any("too dark" in one["lines"] for one in many)
    short = [BoundingBox(*one["placement"]["label"]) for one in many if one["lines"] == ["F 31"]]
    over_faces = [label for label in short if any(overlap(label, box) for box in boxes)]
    assert 0 < len(over_faces) < len(short)  # off all faces where that is possible
    narrow = arranged(anywhere, (24, 200), [BoundingBox(2, 10, 22, 34), BoundingBox(2, 110, 22, 134)])
    assert [one["lines"] for one in narrow.values()] == [["#0"], ["#1"]]
    assert arranged(anywhere, (24, 200), [BoundingBox(2, 10, 22, 34)]) == {}  # a number would tell one face nothing


def test_rounding_is_pythons(anywhere: Page) -> None:
    values = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 30.5, 31.5, 0.49999999999999994, 7.2, -7.8]
    rounded = anywhere.evaluate(
        """async (values) => values.map((await import("/static/layout.js")).roundHalfEven)""", values
    )
    assert rounded == [round(value) for value in values]
