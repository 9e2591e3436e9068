"""One training job by SageMaker's SDK v3 in its local mode, as a user writes it; run by that SDK's own environment.

stdin: JSON with image, root, train (a folder of photos), hyperparameters, hosts, source_code (what SourceCode takes, or
null) and torchrun.
"""

import json
import sys

from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.distributed import Torchrun
from sagemaker.train.model_trainer import Mode

asked = json.load(sys.stdin)
ModelTrainer(
    training_image=asked["image"],
    training_mode=Mode.LOCAL_CONTAINER,
    source_code=SourceCode(**asked["source_code"]) if asked["source_code"] else None,
    distributed=Torchrun() if asked["torchrun"] else None,
    hyperparameters=asked["hyperparameters"],
    compute=Compute(instance_type="local_cpu", instance_count=asked["hosts"]),
    input_data_config=[InputData(channel_name="train", data_source=asked["train"])],
    local_container_root=asked["root"],
    base_job_name="kennel",
).train()
