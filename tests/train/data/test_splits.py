"""Photos decoded and split for a job: what a stop leaves, and what tells one order of photos from another."""

import itertools
import shutil

import pytest

from kennel.errors import UserError
from kennel.hyperparameters import Hyperparameters
from kennel.preprocessing import Preprocessing
from kennel_train.data import image_folder
from kennel_train.data.splits import Splits
from kennel_train.distributed.cluster import Cluster


def decoded(root, begin=lambda: lambda: False):
    found = image_folder.find(root)
    channels = image_folder.label(found, {split: set(classes) for split, classes in found.folders.items()})
    row, hp = Preprocessing(image_size=32, resize=36), Hyperparameters()
    return Splits.decode(channels, root, frozenset(), row, hp, Cluster(), 1, begin, print)


def test_a_job_that_is_stopped_while_it_decodes_says_so(job):
    job.photos("train", {"red": 2, "green": 2})
    said = r"the job was stopped while it decoded, \d of 4 photos were read, too few to learn from: allow a longer run"
    with pytest.raises(UserError, match=said):
        decoded(job.data, lambda: lambda: True)


def test_a_stop_in_the_training_photos_leaves_time_for_some_of_validation(job):
    job.photos("train", {"red": 4, "green": 4})
    job.photos("validation", {"red": 4, "green": 4})

    def begin():
        asked = itertools.count(1)
        return lambda: next(asked) == 5

    splits = decoded(job.data, begin)
    assert {name: len(part.photos) for name, part in splits.parts.items()} == {"train": 5, "validation": 5}
    assert splits.unread == 6


def test_features_are_of_contents_in_their_order_and_not_of_names(job):
    """A restart whose stream comes in another order has the same photos under each other's names."""
    job.photos("train", {"red": 4, "green": 4})
    job.photos("validation", {"red": 2, "green": 2})
    before = decoded(job.data)
    again = decoded(shutil.copytree(job.data, job.base / "elsewhere"))
    one, other = (job.data / "validation" / "red" / f"{at}.jpg" for at in range(2))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    after = decoded(job.data)
    assert after.fingerprint == again.fingerprint == before.fingerprint
    assert again.order == before.order != after.order
