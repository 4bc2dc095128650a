"""What ``dulian batch`` says to people, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping

from dulian.messages import Language

TEXTS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "listing": "listing pictures: {count:,}",
        "comparing": "listing pictures, and reading those of equal size: {count:,}",
        "measuring": "measuring a few pictures",
        "writing": "writing {name}: {count:,} of {all:,}",
        "reading": "counting: {count:,} of {all:,}",
        "starting": "starting",
        "rate": "{rate:.1f}/s",
        "left": "{time} left",
        "errors": "errors: {count:,}",
        "faces": "faces: {count:,}",
        "quarantined": "quarantined: {count:,}",
        "stopped": "stopped; what is committed stays, and this goes on with it: {command}",
        "broken_off": "what is committed stays; when this is mended, go on with: {command}",
        "at_work": "process {pids} of this machine is at work here too: no harm, but work may be done twice",
        "inputs": "inputs",
        "inputs_of": "{count:,} in shards of {size:,} ({shards:,})",
        "of_share": "{count:,}: share {share} of the job",
        "before": "{text}; {count:,} of them were done before",
        "ok": "answered",
        "with_faces": "{count:,} (faces: {faces:,})",
        "duplicate": "duplicates",
        "error": "errors",
        "error_kinds": "{count:,}: {kinds}",
        "none": "none",
        "deaths": "processes lost",
        "took": "time",
        "pace": "{time}, {rate:.1f} pictures/s",
        "nothing_to_do": "{time}; nothing was left to compute",
        "left_alone": "left alone",
        "left_alone_of": "{count:,}, whose names are no pictures'",
        "files": "files",
        "failures": "what was refused",
        "share_next": "when all shares are done",
        "listed": "The job is begun; nothing is computed yet. Go on with: {command}",
        "dry_run": "Nothing was written.",
        "problems": "not opened",
        "bytes": "bytes",
        "bytes_unknown": "{count}, and {unknown:,} pictures of unknown size",
        "all_unknown": "unknown until they are read",
        "place": "in {place}",
        "begun_nothing": "nothing yet",
        "begun_same": "this job: {count:,} of its inputs have their records",
        "begun_other": "another job, so that this one would be refused",
        "estimate": "would take",
        "estimate_of": "about {time}, at {rate:.1f} pictures/s on {threads} cores here",
        "no_sample": "unknown: no picture to measure with",
        "job": "job",
        "job_of": "{id}, {profile} on {engine} ({digest})",
        "done": "done",
        "done_of": "{done:,} of {inputs:,} inputs, {shards_done:,} of {shards:,} shards ({percent})",
        "under_way": "under way",
        "under_way_of": "{attempts:,} attempts, or left over; {pieces:,} pieces of shards",
        "sizes": "bytes",
        "sizes_of": "{inputs} read, {records} of records",
        "damaged_shards": "damaged",
        "damaged_shards_of": "{count:,} shards: dulian batch verify names them",
        "not_read": "not counted",
        "not_read_of": "--details reads all records for errors and faces",
        "goes_on": "go on",
        "complete": "complete: every input has exactly one record",
        "incomplete": "incomplete: {count:,} of {all:,} shards are missing",
        "damaged": "damaged: {count:,} findings",
        "records": "records",
        "records_of": "ok {ok:,}, error {error:,}, duplicate {duplicate:,}",
        "missing": "missing",
        "damage": "damage",
        "foreign": "not of the job",
        "left_over": "left over",
        "left_over_of": "{staging:,} in staging, {pieces:,} in pieces; harmless",
        "reread": "read again",
        "reread_of": "{count:,}, of which {changed:,} are not what was analysed",
        "changed": "changed",
        "more": "… and {count:,} more",
        "verifying": "verifying: {count:,} of {all:,}",
        "merging": "merging: {count:,} of {all:,}",
        "merged": "{written:,} of {records:,} records: {place}",
    },
    "zh": {
        "listing": "正在列出图片:{count:,}",
        "comparing": "正在列出图片,并读取大小相同的:{count:,}",
        "measuring": "正在试算几张图片",
        "writing": "正在写 {name}:{count:,} / {all:,}",
        "reading": "正在统计:{count:,} / {all:,}",
        "starting": "正在启动",
        "rate": "每秒 {rate:.1f} 张",
        "left": "还需 {time}",
        "errors": "错误 {count:,}",
        "faces": "人脸 {count:,}",
        "quarantined": "隔离 {count:,}",
        "stopped": "已停止;已提交的不会丢,继续请运行:{command}",
        "broken_off": "已提交的不会丢;排除故障后继续:{command}",
        "at_work": "本机进程 {pids} 也在处理这里:没有害处,但有的活可能做两遍",
        "inputs": "输入",
        "inputs_of": "{count:,} 个,分 {shards:,} 片,每片 {size:,} 个",
        "of_share": "{count:,} 个:任务的第 {share} 份",
        "before": "{text};其中 {count:,} 个早已完成",
        "ok": "已回答",
        "with_faces": "{count:,} 个,人脸 {faces:,} 张",
        "duplicate": "重复",
        "error": "错误",
        "error_kinds": "{count:,} 个:{kinds}",
        "none": "无",
        "deaths": "损失进程",
        "took": "用时",
        "pace": "{time},每秒 {rate:.1f} 张",
        "nothing_to_do": "{time};没有剩下要算的",
        "left_alone": "略过",
        "left_alone_of": "{count:,} 个,名字不是图片",
        "files": "文件",
        "failures": "查看被拒绝的",
        "share_next": "各份都完成后",
        "listed": "任务已建立,尚未计算。继续请运行:{command}",
        "dry_run": "没有写入任何东西。",
        "problems": "不打开",
        "bytes": "字节",
        "bytes_unknown": "{count},另有 {unknown:,} 张大小未知",
        "all_unknown": "读取之后才知道",
        "place": "{place} 中",
        "begun_nothing": "还没有任务",
        "begun_same": "就是这个任务:{count:,} 个输入已有记录",
        "begun_other": "另一个任务,因此这次会被拒绝",
        "estimate": "预计用时",
        "estimate_of": "约 {time},本机 {threads} 个核每秒 {rate:.1f} 张",
        "no_sample": "未知:没有可供试算的图片",
        "job": "任务",
        "job_of": "{id},{profile},引擎 {engine}({digest})",
        "done": "完成",
        "done_of": "{inputs:,} 个输入中 {done:,} 个,{shards:,} 片中 {shards_done:,} 片({percent})",
        "under_way": "进行中",
        "under_way_of": "{attempts:,} 次尝试(或遗留);{pieces:,} 块不完整的片",
        "sizes": "字节",
        "sizes_of": "读取 {inputs},记录 {records}",
        "damaged_shards": "损坏",
        "damaged_shards_of": "{count:,} 片:dulian batch verify 会列出",
        "not_read": "未统计",
        "not_read_of": "--details 会读取全部记录,统计错误与人脸",
        "goes_on": "继续",
        "complete": "完整:每个输入恰好有一条记录",
        "incomplete": "未完成:{all:,} 片中缺 {count:,} 片",
        "damaged": "已损坏:{count:,} 处",
        "records": "记录",
        "records_of": "已回答 {ok:,},错误 {error:,},重复 {duplicate:,}",
        "missing": "缺少",
        "damage": "损坏",
        "foreign": "不属于任务",
        "left_over": "遗留",
        "left_over_of": "staging 中 {staging:,},pieces 中 {pieces:,};无害",
        "reread": "重新读取",
        "reread_of": "{count:,} 张,其中 {changed:,} 张与分析时不同",
        "changed": "已变化",
        "more": "……还有 {count:,} 处",
        "verifying": "正在核对:{count:,} / {all:,}",
        "merging": "正在合并:{count:,} / {all:,}",
        "merged": "{records:,} 条记录中的 {written:,} 条:{place}",
    },
}

_UNITS: Mapping[Language, tuple[str, str, str, str]] = {"en": ("d", "h", "min", "s"), "zh": ("天", "小时", "分", "秒")}
_SECONDS = (86_400, 3_600, 60, 1)


def duration(seconds: float, language: Language) -> str:
    """Seconds as people say them, in the two largest units that there are."""
    units = _UNITS[language]
    if seconds < 10:
        return f"{round(seconds, 1):g} {units[3]}"
    left = round(seconds)
    parts: list[str] = []
    for size, unit in zip(_SECONDS, units, strict=True):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def size(count: int) -> str:
    """Bytes as people say them."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
