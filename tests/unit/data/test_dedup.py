import random
import sys
from itertools import pairwise

import numpy as np
import pytest

from icae.data.dedup import EXACT, KEPT, NEAR, DedupConfig, Sketcher, find_duplicates, similarities
from icae.data.words import hash_words, text_key
from icae.errors import ConfigError, MissingDependencyError


def verdicts(texts, config=DedupConfig(), seed=0):  # noqa: B008
    hashed = [hash_words(text) for text in texts]
    sketcher = Sketcher(config, seed=seed)
    keys = np.array([text_key(one) for one in hashed], dtype=np.uint64).reshape(-1, 2)
    signatures = np.array([sketcher(one) for one in hashed], dtype=np.uint32)
    return find_duplicates(keys, signatures.reshape(-1, config.permutations), config).tolist()


def story(seed, words=400):
    draw = random.Random(seed)
    return [f"word{draw.randrange(5000)}" for _ in range(words)]


def changed(words, every):
    return [f"new{i}" if i % every == 0 else word for i, word in enumerate(words)]


def test_exact_duplicates_go_whatever_their_case_and_spacing():
    text = " ".join(story(0))
    assert verdicts([text, "other text", text.upper().replace(" ", "\n"), text]) == [
        KEPT,
        KEPT,
        EXACT,
        EXACT,
    ]


def test_near_duplicate_goes_and_the_first_one_stays():
    words = story(0)
    texts = [" ".join(one) for one in (story(1), words, changed(words, 200), story(2))]
    assert verdicts(texts) == [KEPT, KEPT, NEAR, KEPT]


@pytest.mark.parametrize("every", [2, 5, 10])
def test_documents_that_share_some_wording_are_kept(every):
    words = story(0)
    assert verdicts([" ".join(words), " ".join(changed(words, every))]) == [KEPT, KEPT]


def test_documents_without_a_common_run_are_kept():
    assert verdicts([" ".join(story(seed)) for seed in range(30)]) == [KEPT] * 30


def test_threshold_is_a_setting():
    words = story(0)
    texts = [" ".join(words), " ".join(changed(words, 40))]
    assert verdicts(texts, DedupConfig(threshold=0.95)) == [KEPT, KEPT]
    assert verdicts(texts, DedupConfig(threshold=0.6)) == [KEPT, NEAR]


def test_what_is_similar_to_a_dropped_document_only_is_kept():
    words = story(0, 1000)
    chain = [words, changed(words, 60), changed(changed(words, 60), 47)]
    assert verdicts([" ".join(one) for one in chain])[0] == KEPT
    config = DedupConfig(threshold=0.8)
    sketcher = Sketcher(config, seed=0)
    signatures = np.array([sketcher(hash_words(" ".join(one))) for one in chain])
    kept = [i for i, v in enumerate(verdicts([" ".join(one) for one in chain])) if v == KEPT]
    assert all(similarities(signatures, b, [a])[0] < 0.8 for a, b in pairwise(kept))


def test_signature_estimates_the_jaccard_similarity():
    config = DedupConfig(permutations=512, shingle_words=1)
    sketcher = Sketcher(config, seed=3)
    left = " ".join(f"w{i}" for i in range(300))
    right = " ".join(f"w{i}" for i in range(100, 400))
    signatures = np.array([sketcher(hash_words(left)), sketcher(hash_words(right))])
    assert similarities(signatures, 0, [1])[0] == pytest.approx(0.5, abs=0.07)


def test_signature_of_a_long_text_does_not_depend_on_the_pieces(monkeypatch):
    words = hash_words(" ".join(story(0, 3000)))
    whole = Sketcher(DedupConfig(), seed=0)(words)
    monkeypatch.setattr("icae.data.dedup._PIECE", 100)
    assert Sketcher(DedupConfig(), seed=0)(words).tolist() == whole.tolist()


def test_signatures_follow_the_seed():
    words = hash_words(" ".join(story(0)))
    first, again, other = (Sketcher(DedupConfig(), seed=seed)(words) for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()


def test_text_of_fewer_words_than_a_shingle_is_compared_as_a_whole():
    assert verdicts(["one two", "one three", "One, two!"]) == [KEPT, KEPT, EXACT]


def test_empty_corpus_has_no_duplicates():
    assert verdicts([]) == []


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold):
    bands, rows = DedupConfig(threshold=threshold).bands
    assert bands * rows <= 64
    assert 1 - (1 - threshold**rows) ** bands >= 0.95


def test_missing_datasketch_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        Sketcher(DedupConfig(), seed=0)


@pytest.mark.parametrize(
    "bad", [{"threshold": 0}, {"threshold": 1.1}, {"permutations": 8}, {"shingle_words": 0}]
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match="dedup"):
        DedupConfig(**bad)
