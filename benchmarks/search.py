"""Whether a store finds the right page: one manual in English, Korean, Chinese and Japanese.

    python -m benchmarks.search [--output docs/results/search]

The Debian installation guide (package installation-guide-amd64, GPL, fetched with apt-get) has
the same pages in every language: each is a document. Fifteen questions a language were written
from the English table of contents before any search was run; each names the pages that answer
it. Recall@3: the share of the questions of which such a page is among the first three documents
found. No model is used: the pages are kept verbatim.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

from bs4 import BeautifulSoup

from icae import __version__
from icae.config.checkout import commit
from icae.config.spans import plan_spans
from icae.data.documents import document_of_bytes
from icae.memory import Memory, MemoryDocument, Provenance, Span
from icae.model.base import load_tokenizer
from icae.model.base_files import tokenizer_hash
from icae.model.prompts import tokenize_with_offsets
from icae.store import NewMemory, create_store

PACKAGE = "installation-guide-amd64"
BASE = "smollm2-135m-instruct"
SPAN = 32
QUESTIONS: dict[tuple[str, ...], dict[str, str]] = {
    ("ch04s07",): {
        "en": "How do I check that the installation files I downloaded are intact?",
        "ko": "내려받은 설치 파일의 무결성은 어떻게 검증합니까?",
        "zh_CN": "怎样校验下载的安装文件的完整性?",
        "ja": "ダウンロードしたインストールファイルの整合性はどう検証しますか?",
    },
    ("ch04s03",): {
        "en": "How can I prepare a USB stick to boot from?",
        "ko": "부팅할 USB 메모리는 어떻게 준비합니까?",
        "zh_CN": "如何准备用于启动的 USB 盘?",
        "ja": "USB メモリから起動するにはどう準備しますか?",
    },
    ("ch02s05", "ch03s04"): {
        "en": "How much memory and disk space do I need?",
        "ko": "메모리와 디스크 공간은 얼마나 필요합니까?",
        "zh_CN": "需要多少内存和磁盘空间?",
        "ja": "メモリとディスク容量はどれくらい必要ですか?",
    },
    ("ch07s02",): {
        "en": "How are encrypted volumes mounted when the system starts?",
        "ko": "암호화한 볼륨은 어떻게 마운트합니까?",
        "zh_CN": "系统启动时怎样挂载加密的卷?",
        "ja": "暗号化されたボリュームはどうやってマウントしますか?",
    },
    ("ch08s06",): {
        "en": "My system is broken; how can I recover it?",
        "ko": "망가진 시스템을 복구하려면 어떻게 해야 합니까?",
        "zh_CN": "系统损坏了,如何恢复?",
        "ja": "壊れたシステムを復旧するにはどうすればよいですか?",
    },
    ("ch08s04",): {
        "en": "How do I set up e-mail on the system?",
        "ko": "시스템에서 전자메일을 쓰려면 어떻게 설정합니까?",
        "zh_CN": "如何设置系统使用电子邮件?",
        "ja": "電子メールを使うための設定はどうしますか?",
    },
    ("ch08s05",): {
        "en": "How do I compile a kernel of my own?",
        "ko": "커널을 직접 컴파일하려면 어떻게 합니까?",
        "zh_CN": "怎样编译新的内核?",
        "ja": "新しいカーネルをコンパイルするには?",
    },
    ("ch06s04", "ch02s02"): {
        "en": "What can I do if firmware for my device is missing?",
        "ko": "장치의 펌웨어가 없으면 어떻게 합니까?",
        "zh_CN": "缺少设备的固件怎么办?",
        "ja": "デバイスのファームウェアが見つからないときはどうしますか?",
    },
    ("ch08s01",): {
        "en": "How do I shut the computer down properly?",
        "ko": "시스템을 올바르게 끄려면 어떻게 합니까?",
        "zh_CN": "如何正确地关闭系统?",
        "ja": "システムを正しくシャットダウンするには?",
    },
    ("ch03s02",): {
        "en": "Should I back up my files before I install?",
        "ko": "설치하기 전에 데이터를 백업해야 합니까?",
        "zh_CN": "安装之前需要备份数据吗?",
        "ja": "インストールの前にデータをバックアップすべきですか?",
    },
    ("apds04",): {
        "en": "Can I install through a parallel port cable?",
        "ko": "병렬 포트 케이블로 설치할 수 있습니까?",
        "zh_CN": "能通过并口线安装吗?",
        "ja": "パラレルポートのケーブルでインストールできますか?",
    },
    ("apds05",): {
        "en": "How do I install with a PPPoE connection?",
        "ko": "PPPoE 연결로 설치하려면 어떻게 합니까?",
        "zh_CN": "怎样使用 PPPoE 连接进行安装?",
        "ja": "PPPoE 接続でインストールするには?",
    },
    ("ch05s02",): {
        "en": "Can I use a braille display or speech while installing?",
        "ko": "설치할 때 점자 디스플레이나 음성 합성을 쓸 수 있습니까?",
        "zh_CN": "安装时可以使用盲文显示器或语音合成吗?",
        "ja": "インストール中に点字ディスプレイや音声合成を使えますか?",
    },
    ("apbs03",): {
        "en": "How do I write a preconfiguration file?",
        "ko": "미리 설정 파일은 어떻게 만듭니까?",
        "zh_CN": "如何创建预配置文件?",
        "ja": "事前設定ファイルはどう作りますか?",
    },
    ("apes02",): {
        "en": "How can I contribute to this document or report a problem in it?",
        "ko": "이 문서에 기여하거나 문제를 알리려면 어떻게 합니까?",
        "zh_CN": "怎样为本文档做贡献或报告问题?",
        "ja": "この文書に貢献したり問題を報告したりするには?",
    },
}


def pages(folder: Path, language: str) -> dict[str, str]:
    """Name and text of each page of the guide, without its navigation and table of contents."""
    found = {}
    for file in sorted((folder / language).glob("*.html")):
        soup = BeautifulSoup(file.read_bytes(), "html.parser")
        for tag in soup.select(".navheader, .navfooter, .toc"):
            tag.decompose()
        if file.stem != "index":
            data = str(soup).encode()
            found[file.stem] = document_of_bytes(data, name=file.name, suffix=".html").text
    return found


def verbatim(tokenizer: object, text: str, name: str, made_by: Provenance) -> Memory:
    """A memory of a text that keeps every token, in spans of `SPAN`."""
    ids, starts = tokenize_with_offsets(tokenizer, text)
    edges = [0, *starts[1:], len(text)]
    spans = [
        Span.verbatim(
            ids[plan.token_start : plan.token_end],
            token_start=plan.token_start,
            char_start=edges[plan.token_start],
            char_end=edges[plan.token_end],
        )
        for plan in plan_spans(len(ids), span_length=SPAN, ratio=1)
    ]
    document = MemoryDocument.of_text(text, spans, name=name, token_ids_sha256="0" * 64)
    return Memory(documents=(document,), provenance=made_by)


def measure(folder: Path, language: str, scratch: Path, tokenizer: object) -> dict[str, object]:
    """Recall and latency of one language."""
    made_by = Provenance(
        base_model=BASE,
        base_hash="0" * 64,
        adapter="none",
        adapter_hash="0" * 64,
        tokenizer_hash=tokenizer_hash(tokenizer),
        layout="uniform-encoder",
        hidden_size=576,
        key_values=None,
        slot_dtype="float32",
    )
    texts = pages(folder, language)
    missed, seconds, reciprocal = [], [], 0.0
    with create_store(scratch / f"{language}.db") as store:
        store.add(
            [
                NewMemory(name=name, memory=verbatim(tokenizer, text, name, made_by))
                for name, text in texts.items()
            ]
        )
        for wanted, asked in QUESTIONS.items():
            start = time.perf_counter()
            hits = store.search(asked[language], limit=40)
            seconds.append(time.perf_counter() - start)
            order = list(dict.fromkeys(hit.document for hit in hits))
            rank = min((order.index(name) + 1 for name in wanted if name in order), default=0)
            reciprocal += 1 / rank if rank else 0
            if not 0 < rank <= 3:
                missed.append({"question": asked[language], "wanted": wanted, "found": order[:3]})
    return {
        "language": language,
        "documents": len(texts),
        "characters": sum(map(len, texts.values())),
        "questions": len(QUESTIONS),
        "recall_at_3": round(1 - len(missed) / len(QUESTIONS), 3),
        "mean_reciprocal_rank": round(reciprocal / len(QUESTIONS), 3),
        "milliseconds_median": round(1000 * sorted(seconds)[len(seconds) // 2], 2),
        "milliseconds_most": round(1000 * max(seconds), 2),
        "missed": missed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for search.json")
    options = parser.parse_args()
    tokenizer = load_tokenizer(BASE)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=scratch, check=True)
        (package,) = Path(scratch).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, f"{scratch}/x"], check=True)
        folder = Path(scratch, "x/usr/share/doc", PACKAGE)
        languages = ("en", "ko", "zh_CN", "ja")
        rows = [measure(folder, one, Path(scratch), tokenizer) for one in languages]
        record = {"icae": __version__, "commit": commit(), "package": package.name, "rows": rows}
    text = json.dumps(record, ensure_ascii=False, indent=1)
    print(text)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "search.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
