"""Photos decoded and split for a job: what a stop leaves, and what tells one order of photos from another."""

import dataclasses
import shutil

import pytest

from kennel.errors import UserError
from kennel.hyperparameters import Hyperparameters
from kennel.photos.preprocessing import Preprocessing
from kennel_train.context import Context
from kennel_train.contract import stop as stops
from kennel_train.contract.stop import Never
from kennel_train.data import image_folder
from kennel_train.data.splits import Splits
from kennel_train.distributed import device


class Late:
    """A job that was stopped long ago: of each split so many photos are read, by the times that its grace is asked."""

    def __init__(self, photos):
        self.photos, self.asked = photos, 0

    def __call__(self):
        return True

    def ago(self, seconds):
        self.asked += 1
        return self.asked % self.photos == 0


def decoded(root, stop=None):
    found = image_folder.find(root)
    channels = image_folder.label(found, {split: set(classes) for split, classes in found.folders.items()})
    context = Context(
        Hyperparameters(), dataclasses.replace(device.choose(""), threads=1), stop=stop or Never(), root=root
    )
    return Splits.decode(channels, frozenset(), Preprocessing(image_size=32, resize=36), context, print)


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch):
    monkeypatch.setattr(stops, "GRACE", 0.0)


def test_a_job_that_is_stopped_while_it_decodes_says_so(job):
    job.photos("train", {"red": 2, "green": 2})
    said = r"the job was stopped while it decoded, \d of 4 photos were read, too few to learn from: allow a longer run"
    with pytest.raises(UserError, match=said):
        decoded(job.data, Late(1))


def test_a_stop_in_the_training_photos_leaves_time_for_some_of_validation(job):
    job.photos("train", {"red": 4, "green": 4})
    job.photos("validation", {"red": 4, "green": 4})

    splits = decoded(job.data, Late(5))
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
