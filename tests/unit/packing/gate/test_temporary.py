"""Names that say that a file is not finished, and names that only look so."""

import time

import pytest

from kitd.packing.gate.temporary import is_temporary


@pytest.mark.parametrize(
    "path",
    [
        "model.safetensors.tmp",
        "model.temp",
        "sub/weights.bin.part",
        "a.partial",
        "a.filepart",
        ".cache/huggingface/download/x=.abcdef.incomplete",
        "a.incomplete/dataset.arrow",
        "a.crdownload",
        "a.download/a",
        "model.bin.aria2",
        "model.bin.tmp.4711",
        "model.bin.tmp-x7Gk",
        "model.bin.tmp12",
        "a.temp_9",
        ".tmp-a1b2c3",
        "sub/.tmp.driveupload",
        ".model.safetensors.Xa3kQ9",
        ".goutputstream-AB12CD",
        "runs/tmp-checkpoint-500/model.safetensors",
        "ckpt/7.orbax-checkpoint-tmp-1699999999/d/0",
        "ckpt/7.orbax-checkpoint-tmp/d",
        ".nfs000000000123abcd00000001",
        ".fuse_hidden0000012300000001",
    ],
)
def test_the_names_of_unfinished_files(path):
    assert is_temporary(path.encode())


@pytest.mark.parametrize(
    "path",
    [
        "model.safetensors",
        "tmp/model.bin",
        "temp.py",
        "template.txt",
        "part.csv",
        "party.parts",
        "a.template",
        "a.tmpl",
        "a.tempo",
        "download/a.csv",
        "partial/a.csv",
        ".part",
        "checkpoint-500/model.safetensors",
        "my-tmp-checkpoint-5",
        ".env.sample",
        ".env.docker",
        ".gitignore",
        ".eslintrc.json",
        ".config.backup",
        # An open editor keeps these beside the file, and they never become it.
        ".train.py.swp",
        "train.py~",
        "~$report.docx",
        ".~lock.report.odt#",
        "#train.py#",
    ],
)
def test_other_names(path):
    assert not is_temporary(path.encode())


@pytest.mark.parametrize("part", [b"a.tmp", b".tmp1", b"a", b".", b".a1.", b".orbax-checkpoint-tm"])
def test_hostile_names_cost_little(part):
    begin = time.process_time()
    for _ in range(100):
        assert not is_temporary(b"x" + (part * 255)[:250] + b"!")
    assert time.process_time() - begin < 0.5
