"""The model card: one HTML page with tables and plots, which needs no other file and holds its figures as JSON too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from dulian.evaluate import headline as figures
from dulian.evaluate.plots import Axis, Whisker, lines, whiskers
from dulian.evaluate.report import AGE_BANDS
from dulian.markup import stylesheet

Report = Mapping[str, Any]

AGE_GROUPS = tuple(f"age {low}+" if high >= 200 else f"age {low}–{high}" for low, high in AGE_BANDS)
SHARE = "{:.0%}".format

# Chinese for what the tables say in English.
CHINESE = {
    "faces found, at least 32 px high": "召回率(人脸高 ≥ 32 像素)",
    "detections that are faces": "检测精确率",
    "photos without a face in which one is found": "无人脸照片中的误检",
    "gender right": "性别正确率",
    "gender right, adults": "性别正确率(成人)",
    "women minus men": "女性与男性之差(百分点)",
    "gender answered": "给出性别的比例",
    "gender right when answered": "作答时的性别正确率",
    "gender right, surest 85 %": "最有把握的 85 % 中的正确率",
    "gender calibration error": "性别概率的校准误差",
    "age error, years": "年龄平均绝对误差(岁)",
    "age bucket right": "年龄段正确率",
    "age bucket right or next": "年龄段正确或相邻",
    "90 % interval holds": "90 % 区间的实际覆盖率",
    "90 % interval, years wide": "90 % 区间的平均宽度(岁)",
}


def model_card(reports: Sequence[Report]) -> str:
    """The card of profiles that were judged on the same pictures."""
    names = [report["profile"] for report in reports]
    sections = (
        _opening(reports),
        _section("Figures", "总览", _headline_table(reports)),
        *_held_out_sections(reports),
        _section("Plots", "图", _legend(names) + "".join(_plots(reports))),
        _section("Groups", "分组", "".join(map(_groups, reports))),
        _section("Faces found", "检测", _detection_table(reports) + _hard_table(reports)),
        _section("Doubt", "存疑", _status_table(reports)),
        _section("Networks and licences", "网络与许可", _networks(reports)),
        _section("How to read this", "说明", _notes(reports)),
    )
    data = json.dumps(reports, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>dulian: model card</title>\n<style>{stylesheet('card.css')}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + f'\n</main>\n<script type="application/json" id="report">{data}</script>\n</body>\n</html>\n'
    )


def read_reports(card: str) -> list[dict[str, Any]]:
    """The figures that a card holds."""
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', card, re.DOTALL)
    reports: list[dict[str, Any]] = json.loads(found[1]) if found else []
    return reports


# ── sections ─────────────────────────────────────────────────────────────────────────────────────


def _section(title: str, chinese: str, body: str) -> str:
    return f'<section>\n<h2>{escape(title)} <span lang="zh">{escape(chinese)}</span></h2>\n{body}\n</section>'


def _opening(reports: Sequence[Report]) -> str:
    data, versions = reports[0]["data"], {report["dulian"] for report in reports}
    about = (
        f"How often dulian {', '.join(sorted(versions))} is right, measured on {data['pictures']:,} labelled pictures: "
        f"{data['boxes']:,} boxed faces, {data['genders']:,} genders, {data['ages']:,} exact ages. Both are "
        "what annotators saw, not what people say of themselves. In brackets: 95 % confidence intervals by bootstrap."
    )
    chinese = (
        f"在 {data['pictures']:,} 张标注照片上测得的准确度。"
        "年龄与性别均为标注者的观感,而非本人所述。方括号内为自助法 95 % 置信区间。"
    )
    return (
        f'<header><h1>dulian 读脸: model card</h1>\n<p>{escape(about)}</p>\n<p lang="zh">{escape(chinese)}</p></header>'
    )


def _headline_table(reports: Sequence[Report]) -> str:
    plain = [{key: value for key, value in report.items() if key != "held_out"} for report in reports]
    return _side_by_side([report["profile"] for report in reports], [figures.headline(report) for report in plain])


HELD_OUT = {
    "by_tenths": (
        "On faces that were not learned from",
        "交叉验证",
        "Every face judged by tables fitted to the other nine tenths, each number and threshold anew each time.",
        "每张人脸由其余九成人脸拟合的参数判定;每一折均重新拟合全部参数与阈值。",
    ),
    "by_source": (
        "On sources that were not learned from",
        "留出来源",
        "Every source of photos judged by tables fitted to the other sources: what to expect of photos unlike these.",
        "每个来源由其他来源拟合的参数判定:对陌生照片应有的预期。",
    ),
}


def _held_out_sections(reports: Sequence[Report]) -> Iterable[str]:
    for name, (title, chinese, text, chinese_text) in HELD_OUT.items():
        held_out = {report["profile"]: report.get("held_out", {}).get(name) for report in reports}
        there = {profile: found for profile, found in held_out.items() if found}
        if there:
            table = _side_by_side(list(there), [figures.held_out_rows(found) for found in there.values()])
            told = f'<p>{escape(text)}</p><p lang="zh">{escape(chinese_text)}</p>'
            yield _section(title, chinese, told + table + _by_source(there))


def _by_source(held_out: Mapping[str, Report]) -> str:
    rows = [
        (profile, source, figures.share(row["gender"]), figures.years(row.get("error")), _share(row, "interval_holds"))
        for profile, found in held_out.items()
        for source, row in found["by_source"].items()
    ]
    table = _table(("profile", "source", "gender right", "age error, years", "90 % interval holds"), rows, texts=2)
    return f"<details><summary>by source <span lang='zh'>按来源</span></summary>{table}</details>"


def _share(row: Report, name: str) -> str:
    return figures.share(row.get(name))


def _side_by_side(names: Sequence[str], columns: Sequence[Mapping[str, str]]) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for label in columns[0]:
        chinese = f'<span lang="zh">{escape(CHINESE[label])}</span>' if label in CHINESE else ""
        cells = "".join(f"<td>{_split(column[label])}</td>" for column in columns)
        rows.append(f'<tr><th scope="row">{escape(label)} {chinese}</th>{cells}</tr>')
    return (
        f'<div class="wide"><table><thead><tr><td></td>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _split(figure: str) -> str:
    """A figure with its interval in smaller type."""
    value, bracket, interval = figure.partition(" [")
    return f"{escape(value)} <small>[{escape(interval)}</small>" if bracket else escape(value)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int = 1) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="text">{escape(cell)}</td>' if number < texts else f"<td>{_split(cell)}</td>"
            for number, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


# ── plots ────────────────────────────────────────────────────────────────────────────────────────


def _legend(names: Sequence[str]) -> str:
    items = "".join(f'<li class="s{place}">{escape(name)}</li>' for place, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def _plots(reports: Sequence[Report]) -> Iterable[str]:
    bands = [name.removeprefix("age ") for name in AGE_GROUPS]
    share = Axis(0.4, 1.0, 0.1, "", SHARE)
    yield whiskers("Gender right, by age · 各年龄的性别正确率", bands, _by_age(reports, "gender", "right"), share)
    years = Axis(0, 30, 5, "years")
    yield whiskers("Mean error, by age · 各年龄的平均误差", bands, _by_age(reports, "age", "error"), years)
    holds = _by_age(reports, "age", "interval_holds")
    yield whiskers("90 % interval holds, by age · 各年龄的区间覆盖率", bands, holds, share)
    heights = list(reports[0]["detection"]["by_height"])
    found = {
        report["profile"]: [_whisker(report["detection"]["by_height"].get(height)) for height in heights]
        for report in reports
    }
    whole = Axis(0, 1, 0.2, "", SHARE)
    yield whiskers("Faces found, by height in pixels · 各高度的召回率", heights, found, whole)
    yield lines(
        "Right when only the surest are answered · 只答最有把握者时的正确率",
        {
            report["profile"]: [
                (point["answered"], point["right"]) for point in report["gender_probability"].get("risk_coverage", ())
            ]
            for report in reports
        },
        Axis(0, 1, 0.2, "share of faces answered", SHARE),
        Axis(0.6, 1, 0.1, "gender right", SHARE),
    )
    yield lines(
        "Probability told, and how often it was right · 所报概率与实际正确率",
        {
            report["profile"]: [
                (point["probability"], point["right"])
                for point in report["gender_probability"].get("bins", ())
                if point["n"] >= 10
            ]
            for report in reports
        },
        Axis(0.5, 1, 0.1, "probability told", SHARE),
        Axis(0.3, 1, 0.1, "gender right", SHARE),
        diagonal=True,
    )


def _by_age(reports: Sequence[Report], attribute: str, name: str) -> dict[str, list[Whisker | None]]:
    return {
        report["profile"]: [_whisker((report[attribute].get(group) or {}).get(name)) for group in AGE_GROUPS]
        for report in reports
    }


def _whisker(figure: Report | None) -> Whisker | None:
    return None if figure is None else (figure["value"], figure["low"], figure["high"])


# ── tables ───────────────────────────────────────────────────────────────────────────────────────


def _groups(report: Report) -> str:
    genders, ages = report["gender"], report["age"]
    rows = []
    for group in genders | ages:
        gender, age = genders.get(group) or {}, ages.get(group) or {}
        rows.append(
            (
                group,
                str(gender.get("n", 0)),
                _share(gender, "right"),
                figures.percent(gender.get("answered")),
                _share(gender, "when_answering"),
                figures.years(age.get("error")),
                figures.number(age.get("bias"), 1),
                _share(age, "bucket_exact"),
                _share(age, "interval_holds"),
            )
        )
    heads = (
        "group",
        "faces",
        "gender right",
        "answered",
        "right then",
        "age error",
        "bias",
        "bucket right",
        "90 % holds",
    )
    return f"<details><summary>{escape(report['profile'])}</summary>{_table(heads, rows)}</details>"


def _detection_table(reports: Sequence[Report]) -> str:
    rows = []
    for report in reports:
        found, negatives = report["detection"], report["negatives"]
        heights = [figures.share(figure).partition(" ")[0] for figure in found["by_height"].values()]
        counts = [f"{group['with_a_face']} of {group['pictures']}" for group in negatives.values()]
        rows.append((report["profile"], *heights, figures.share(found["precision"]), *counts))
    heads = [f"{height} px" for height in reports[0]["detection"]["by_height"]]
    negatives = [f"a face in {name} without" for name in reports[0]["negatives"]]
    return _table(("found, by height", *heads, "precision", *negatives), rows)


def _hard_table(reports: Sequence[Report]) -> str:
    kinds = list(reports[0]["hard"])
    if not kinds:
        return ""
    rows = [
        (kind, *(f"{report['hard'][kind]['with_a_face']} of {report['hard'][kind]['pictures']}" for report in reports))
        for kind in kinds
    ]
    return _table(("hard pictures in which a face is found", *(report["profile"] for report in reports)), rows)


def _status_table(reports: Sequence[Report]) -> str:
    rows = [
        (report["profile"], group, *(str(counts[status]) for status in ("ok", "uncertain", "low_quality")))
        for report in reports
        for group, counts in report["status"].items()
    ]
    return _table(("profile", "faces", "ok", "uncertain", "low_quality"), rows, texts=2)


def _networks(reports: Sequence[Report]) -> str:
    profiles: dict[tuple[str, ...], list[str]] = {}
    for report in reports:
        for network in report["networks"]:
            told = (network["name"], ", ".join(network["provides"]), network["licence_weights"], network["trained_on"])
            profiles.setdefault((*told, network["origin"]), []).append(report["profile"])
    rows = [(network[0], ", ".join(names), *network[1:]) for network, names in profiles.items()]
    return _table(("network", "profiles", "gives", "licence of weights", "trained on", "origin"), rows, texts=6)


def _notes(reports: Sequence[Report]) -> str:
    sources = ", ".join(f"{name} {count:,}" for name, count in reports[0]["data"]["sources"].items())
    runs = "; ".join(f"{report['profile']} on {report['engine']}, digest {report['digest']}" for report in reports)
    told = f"""
Pictures by source: {sources}. Runs: {runs}.

The calibration tables of each profile were fitted to these very pictures; what to expect of others is in the two tables
of held-out figures. The pictures hold about as many children as adults of each age, which few albums and no shop door
do.

face-api was trained on photos of UTKFace, from which many of these pictures come: the profile accurate is flattered by
them, and less so in the sources aaf and fairface.

Crops in which a face fills the frame were given a border of 60 pixels. A group without enough faces has a wide
interval: read that first. dulian recognises nobody, and its ages are no proof of anybody's age.

Groups 0 to 4 are labels of UTKFace: white, black, Asian, Indian, others. Sizes and sharpness are those that dulian
measures.

To make this card: dulian evaluate --data FOLDER --profile all --cross-validate --output FOLDER
"""
    return "".join(f"<p>{escape(paragraph)}</p>" for paragraph in told.strip().split("\n\n"))
