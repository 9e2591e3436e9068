"""Which device a job takes, by what the host shows of its GPUs; there is none here that CUDA could start on."""

import pytest
import torch

from kennel.errors import UserError
from kennel_train.distributed import device

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")


@pytest.mark.parametrize("name", ["nvidia0", "nvidia1"])
def test_a_gpu_that_cuda_cannot_start_on_ends_the_job_unless_the_cpu_is_asked_for(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match="the host has an NVIDIA GPU"):
        device.choose("", devices=tmp_path)
    assert device.choose("", visible="", devices=tmp_path).torch.type == "cpu"


def test_the_driver_s_other_files_are_no_gpu(tmp_path):
    (tmp_path / "nvidiactl").touch()
    assert device.choose("", devices=tmp_path).torch.type == "cpu"
