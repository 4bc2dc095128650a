"""The report's words, in English and Chinese. The only place that has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dulian.messages import Language

TEXTS: Mapping[str, tuple[str, str]] = {
    # ── head ──
    "title": ("Batch report", "批量分析报告"),
    "headline": (
        "{inputs} inputs, analysed by profile {profile} on {engine}.",
        "共 {inputs} 个输入，由方案 {profile} 在 {engine} 上分析。",
    ),
    "filtered": ("Only records that meet: ", "仅包含满足以下条件的记录："),
    "perceived": (
        "Ages and genders are how faces look, estimated; they are no proof of anything, and nobody is recognised.",
        "年龄与性别只是看上去的估计，不能作为任何证明；本软件不识别任何人的身份。",
    ),
    # ── figures ──
    "inputs": ("inputs", "输入"),
    "answered": ("answered", "已分析"),
    "duplicates": ("duplicates", "重复"),
    "errors": ("failed", "失败"),
    "with_faces": ("with a face", "含人脸"),
    "without_faces": ("without a face", "无人脸"),
    "faces": ("faces", "人脸"),
    "outcome": ("What became of the inputs", "处理结果"),
    "of_answered": ("of those answered", "占已分析"),
    "per_picture": ("{mean} per picture with a face", "有人脸的图片平均 {mean} 张"),
    "unlisted": ("and {count} beyond the limit per picture", "另有 {count} 张超出单图上限"),
    # ── ages and genders ──
    "people": ("Age and gender", "年龄与性别"),
    "people_caption": ("Faces by perceived age and gender", "人脸数，按看上去的年龄与性别"),
    "age": ("age", "年龄"),
    "male": ("male", "男"),
    "female": ("female", "女"),
    "undecided": ("undecided", "难以判断"),
    "not_asked": ("not asked", "未分析"),
    "all": ("all", "合计"),
    "no_faces": ("There is no face to show.", "没有可显示的人脸。"),
    "people_note": (
        (
            "Each face is counted at the middle of its estimate. Its true age lies in an interval that is {years} years"
            " wide on average ({coverage} of the time), so neighbouring bars run into each other."
        ),
        (
            "每张人脸按估计值的中心计入。真实年龄落在一个平均宽 {years} 岁的区间内（概率 {coverage}），"
            "因此相邻的柱之间没有清晰的界线。"
        ),
    ),
    "undecided_note": (
        "“Undecided” are faces whose gender was asked for and could not be told; they are in neither of the other two.",
        "“难以判断”是分析过性别但无法确定的人脸，不计入男或女。",
    ),
    # ── quality ──
    "quality": ("How well faces can be judged", "人脸质量"),
    "score": ("Quality score", "质量分"),
    "statuses": ("Status", "状态"),
    "status": ("status", "状态"),
    "reasons": ("Reasons for doubt", "存疑原因"),
    "reasons_note": ("A face may have several, or none.", "一张脸可以有多个原因，也可以没有。"),
    "no_reasons": ("There is no reason for doubt.", "没有存疑。"),
    "face_size": ("Size of faces, shorter side", "人脸大小（短边）"),
    "status.ok": ("clear", "清楚"),
    "status.uncertain": ("uncertain", "没把握"),
    "status.low_quality": ("poor picture", "画质不足"),
    "reason.incomplete": ("file cut off", "文件不完整"),
    "reason.face_too_small": ("too small", "太小"),
    "reason.cut_by_frame": ("cut by the edge", "被边缘截断"),
    "reason.too_dark": ("too dark", "太暗"),
    "reason.too_bright": ("too bright", "过曝"),
    "reason.blurred": ("blurred", "模糊"),
    "reason.profile_view": ("turned away", "侧脸"),
    "reason.low_confidence": ("hard to tell", "难以判断"),
    "doubtful": ("Faces most in doubt", "最存疑的人脸"),
    "look": ("look", "缩略图"),
    "picture": ("picture", "图片"),
    "face": ("face", "人脸"),
    "why": ("why", "原因"),
    # ── pictures ──
    "pictures": ("Pictures", "图片"),
    "picture_size": ("Size of pictures", "图片大小"),
    "sizes_note": (
        "{bytes} were read in all, {pixels} megapixels decoded.",
        "共读取 {bytes}，解码 {pixels} 百万像素。",
    ),
    "hints": ("Why no face was found", "为何没有找到人脸"),
    "hint.no_face": ("nobody to be seen", "没有人"),
    "hint.almost_a_face": ("something almost a face", "有近似人脸之物"),
    "hint.lone_face": ("one doubtful face alone", "只有一张可疑的脸"),
    # ── failures ──
    "failures": ("Failures", "失败"),
    "no_failures": ("Every input was answered.", "全部输入均已得到结果。"),
    "by_code": ("By error", "按错误"),
    "examples": ("{shown} of {count}", "{count} 个中的 {shown} 个"),
    "message": ("message", "说明"),
    "error.malformed_input": ("the file is empty", "文件为空"),
    "error.input_not_found": ("not there, a link or a device, or not to be read", "不存在、是链接或设备，或无权读取"),
    "error.input_too_large": ("more bytes or pixels than are accepted", "字节或像素超过上限"),
    "error.input_unavailable": ("a store did not give it", "存储没有给出"),
    "error.unsupported_image": ("no image of a kind that is read", "不是可读取的图片格式"),
    "error.image_decode_failed": ("damaged, or a coding that is not supported", "已损坏，或编码不受支持"),
    "error.image_truncated": ("the file ends too early", "文件过早结束"),
    "error.process_died": ("it ended every process that looked at it", "使每个处理它的进程终止"),
    # ── time ──
    "time": ("Time", "用时"),
    "no_times": ("Nothing was computed.", "没有计算任何图片。"),
    "time_note": (
        (
            "Half of the pictures took no longer than {half} ms, nine in ten {tenth} ms, 99 in 100 {hundredth} ms;"
            " the slowest {slowest} ms. Together they took {total} of computing."
        ),
        (
            "半数图片不超过 {half} 毫秒，九成不超过 {tenth} 毫秒，百分之九十九不超过 {hundredth} 毫秒；"
            "最慢 {slowest} 毫秒。合计计算时间 {total}。"
        ),
    ),
    "steps": ("Where the time goes, per picture", "平均每张图片的用时"),
    "step.decode": ("decoding", "解码"),
    "step.detect": ("finding faces", "检测"),
    "step.attributes": ("age and gender", "属性"),
    "step.other": ("the rest", "其余"),
    "ms": ("{number} ms", "{number} 毫秒"),
    "slowest": ("Slowest pictures", "最慢的图片"),
    "total": ("in all", "合计"),
    "size": ("size", "尺寸"),
    # ── job ──
    "job": ("This job", "任务"),
    "job.id": ("job", "任务编号"),
    "job.manifest": ("sha256 of the list", "清单 sha256"),
    "job.shards": ("shards", "分片"),
    "job.shards_of": ("{shards} of {size} inputs each", "{shards} 个，每个 {size} 个输入"),
    "job.base": ("names are below", "相对路径的起点"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "job.inputs": ("inputs of the job", "任务的输入"),
    "notes": ("How to read this", "说明"),
    "note.interval": (
        (
            "An age is an estimate with an interval; take the interval, not the number, where it matters. What dulian"
            " gets wrong, and for whom, is in its model card."
        ),
        "年龄是带区间的估计；需要慎重时请看区间而不是单个数字。各人群的误差见模型卡。",
    ),
    "note.use": (
        "This report is no ground for a decision about a person.",
        "本报告不能作为对任何人作出决定的依据。",
    ),
    "note.duplicates": (
        "Duplicates are inputs with the same bytes as another one; they are not counted among pictures and faces.",
        "“重复”指与另一输入字节完全相同的输入，不再计入图片与人脸。",
    ),
    "made_by": (
        "Made by dulian {version}. The page holds no script and loads nothing.",
        "由 dulian {version} 生成；本页不含脚本，也不加载任何外部内容。",
    ),
}


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of one language."""

    language: Language

    def __call__(self, key: str, **facts: object) -> str:
        """A text, its blanks filled."""
        return TEXTS[key][self.language == "zh"].format(**facts)

    def of_code(self, kind: str, code: str) -> str:
        """The words for a code; the code itself where it has none."""
        known = f"{kind}.{code}"
        return self(known) if known in TEXTS else code.replace("_", " ")
