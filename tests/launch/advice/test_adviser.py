"""What a launch is refused for before anything exists, and in which words: as a user asks, against an emulated AWS."""

import json
from collections.abc import Iterator

import boto3
import pytest

from kennel.errors import UserError
from kennel_launch.aws import inference_ami, instance_types

from ...emulated_aws.client import Aws
from ..conftest import Command
from ..front import FULL, Front, before

SLIM = ("PYTHONUNBUFFERED=1",)
CUDA_13 = (FULL[0], "CUDA_VERSION=13.0.1")
SLIM_HINT = "the slim image (make build-serve-cpu, then kennel push kennel:serve-cpu --to ...)"


@pytest.fixture
def front(aws: Aws, command: Command) -> Iterator[Front]:
    with before(aws, command) as front:
        yield front


def test_what_can_run_is_told_its_price_and_nothing_else(front: Front) -> None:
    price = "ml.g5.xlarge: about $1.50 an hour, $36.00 a day (AWS's price list for eu-west-1)"
    assert front.allowed("train") == [price]
    assert front.allowed("train", "--role", "kennel-execution") == [price]  # a name will do
    slim = front.put_image("slim", SLIM)
    assert front.allowed("deploy", image=slim) == [
        "ml.c7i.large: about $0.12 an hour, $3.00 a day until it is deleted (AWS's price list for eu-west-1)"
    ]
    assert front.allowed("deploy", "--mode", "serverless", image=slim) == [
        "serverless, 3072 MB: billed by the millisecond that requests take, nothing while idle; see "
        "https://aws.amazon.com/sagemaker/pricing/"
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("train", "--instance-type", "ml.g5.xlrge"),
            "no instance type 'ml.g5.xlrge' for training: did you mean 'ml.g5.x",
        ),
        (("train", "--instance-type", "ml.c7g.large"), "no instance type 'ml.c7g.large' for training"),
        (("train", "--instance-type", "everything"), "take one such as ml.m5.xlarge"),
        (
            ("train", "--instance-type", "ml.trn1.2xlarge"),
            "ml.trn1.2xlarge has chips that this image does not train on",
        ),
        (("deploy", "--endpoint-instance-type", "ml.inf2.xlarge"), "has chips that this image does not use"),
        (
            ("deploy", "--endpoint-instance-type", "ml.c7g.large"),
            "built for amd64, ml.c7g.large runs arm64: take a type",
        ),
        (("transform", "--endpoint-instance-type", "ml.p5.48xlarge"), "no instance type 'ml.p5.48xlarge' for batch"),
    ],
)
def test_instance_types_that_cannot_be(front: Front, words: tuple[str, ...], said: str) -> None:
    assert said in front.refused(*words)


def test_the_instance_type_is_that_of_the_launch(front: Front) -> None:
    kind = ("--instance-type", "ml.m5.xlarge")
    for words in (("train", *kind), ("deploy", *kind), ("transform", *kind)):
        assert any(line.startswith("ml.m5.xlarge: about $") for line in front.allowed(*words))


@pytest.mark.parametrize(
    ("words", "env", "added"),
    [
        (("deploy", "--endpoint-instance-type", "ml.g5.xlarge"), FULL, "al2-ami-sagemaker-inference-gpu-3-1"),
        (("deploy", "--endpoint-instance-type", "ml.g5.xlarge"), CUDA_13, "al2023-ami-sagemaker-inference-gpu-4-1"),
        (("transform", "--endpoint-instance-type", "ml.g5.xlarge"), FULL, "al2-ami-sagemaker-batch-gpu-535"),
        (("deploy", "--endpoint-instance-type", "ml.p3.2xlarge"), FULL, ""),
        (("deploy", "--endpoint-instance-type", "ml.c7i.large"), FULL, ""),
    ],
)
def test_the_host_is_one_whose_driver_runs_the_image(
    front: Front, words: tuple[str, ...], env: tuple[str, ...], added: str
) -> None:
    lines = front.allowed(*words, image=front.put_image("gpu", env))
    field = "TransformAmiVersion" if words[0] == "transform" else "InferenceAmiVersion"
    assert [line for line in lines if "AmiVersion" in line] == ([f"{field}: {added}"] if added else [])
    compat = "the image's CUDA compatibility libraries do the rest" in "".join(lines)
    assert compat == (added.endswith(("535", "3-1")) or "ml.p3.2xlarge" in words)


@pytest.mark.parametrize(
    ("cuda", "kind", "transform", "ami"),
    [
        ((11, 2), "ml.g5.xlarge", False, ""),
        ((11, 8), "ml.g5.xlarge", False, "al2-ami-sagemaker-inference-gpu-2-1"),
        ((12, 1), "ml.g4dn.xlarge", False, "al2-ami-sagemaker-inference-gpu-2-1"),
        ((12, 1), "ml.g6.xlarge", False, ""),
        ((12, 4), "ml.p4d.24xlarge", False, "al2-ami-sagemaker-inference-gpu-3-1"),
        ((12, 4), "ml.p5e.48xlarge", False, ""),
        ((13, 1), "ml.g6e.xlarge", False, "al2023-ami-sagemaker-inference-gpu-4-1"),
        ((12, 1), "ml.g4dn.xlarge", True, "al2-ami-sagemaker-batch-gpu-535"),
        ((13, 0), "ml.g5.xlarge", True, "al2-ami-sagemaker-batch-gpu-535"),
        ((12, 8), "ml.g5.xlarge", False, "al2-ami-sagemaker-inference-gpu-3-1"),
        ((12, 9), "ml.g6.xlarge", False, "al2-ami-sagemaker-inference-gpu-3-1"),
        ((12, 8), "ml.p5e.48xlarge", False, ""),
        ((12, 8), "ml.g5.xlarge", True, "al2-ami-sagemaker-batch-gpu-535"),
        ((12, 8), "ml.g7e.2xlarge", False, ""),
    ],
)
def test_the_system_of_the_images_own_cuda_comes_first(
    cuda: inference_ami.Version, kind: str, transform: bool, ami: str
) -> None:
    assert inference_ami.choose_ami(cuda, kind, transform).ami == ami


def test_an_image_too_new_for_every_driver_of_a_host(front: Front) -> None:
    said = front.refused("deploy", "--endpoint-instance-type", "ml.p3.2xlarge", image=front.put_image("new", CUDA_13))
    assert "the image's CUDA 13.0 does not run on ml.p3.2xlarge, which has host driver 470 (CUDA 11.4) at most" in said
    with pytest.raises(UserError, match="CUDA 14"):
        inference_ami.choose_ami((14, 0), "ml.g5.xlarge")


def test_graviton_grace_and_gpu_are_told_by_the_name() -> None:
    arm = {"ml.c7g.large", "ml.m6gd.xlarge", "ml.c6gn.xlarge", "ml.r8g.large", "ml.p6e-gb200.36xlarge"}
    kinds = ("ml.g5.xlarge", "ml.g4dn.xlarge", "ml.m5.large", "ml.c7i-flex.large", "ml.p5en.48xlarge", *arm)
    assert {kind for kind in kinds if instance_types.architecture(kind) == "arm64"} == arm
    gpus = {kind for kind in kinds if instance_types.has_gpu(kind)}
    assert gpus == {"ml.g5.xlarge", "ml.g4dn.xlarge", "ml.p5en.48xlarge", "ml.p6e-gb200.36xlarge"}


def test_which_of_our_images_for_what(front: Front) -> None:
    slim = front.put_image("slim", SLIM)
    assert "is the slim one, which only serves" in front.refused("train", image=slim)
    gpu = ("deploy", "--endpoint-instance-type", "ml.g5.xlarge")
    assert "is the slim one, which leaves the GPU of ml.g5.xlarge idle" in front.refused(*gpu, image=slim)
    assert "is made for GPUs, which serverless endpoints lack" in front.refused("deploy", "--mode", "serverless")
    assert f"ml.c7i.large has no GPU: {SLIM_HINT} starts sooner there" in front.allowed("deploy")
    slow = front.allowed("train", "--instance-type", "ml.m5.xlarge")
    assert slow[0] == "ml.m5.xlarge has no GPU: to train a whole backbone takes long there"
    foreign = front.put_image("foreign", SLIM, entrypoint=["bash"])
    assert front.allowed("train", image=foreign)[0].startswith("the image is not Kennel's")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--memory", "1500"), "can't have 1500 MB: write one of 1024, 2048, 3072, 4096, 5120, 6144"),
        (("--max-concurrency", "201"), "can't answer 201 requests at once: write 1 to 200"),
        (("--subnets", "subnet-1"), "can't lie in a VPC"),
        (("--security-groups", "sg-1"), "can't lie in a VPC"),
    ],
)
def test_what_serverless_excludes(front: Front, words: tuple[str, ...], said: str) -> None:
    assert said in front.refused("deploy", "--mode", "serverless", *words, image=front.put_image("slim", SLIM))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("kennel:dev", "does not lie in ECR"),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel:dev", "lies in us-east-1, the launch in eu-west-1"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/kennel:gone", "repository 'kennel' has no image 'gone'"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/none:dev", "no repository 'none': push it with kennel push"),
    ],
)
def test_an_image_that_is_not_there(front: Front, image: str, said: str) -> None:
    assert said in front.refused("train", image=image)


def test_what_may_not_be_looked_at_is_said_and_goes_on(front: Front) -> None:
    front.denied = {"BatchGetImage", "GetRole", "ListServiceQuotas", "GetProducts"}
    assert front.allowed("train") == [
        "the image could not be checked (AccessDeniedException: not yours)",
        "role kennel-execution could not be checked (AccessDenied: not yours)",
        "the quota 'ml.g5.xlarge for training job usage' could not be checked (AccessDeniedException: not yours)",
        "ml.g5.xlarge: about $1.41 an hour, $33.79 a day (a table of 2026-11 for us-east-1)",
    ]
    front.denied = {"SimulatePrincipalPolicy"}
    assert front.allowed("train")[0] == (
        "whether role kennel-execution may use the bucket and the image could not be checked (AccessDenied: not yours)"
    )


def test_a_page_that_is_not_aws_s_is_said_and_goes_on(front: Front) -> None:
    front.garbled = {"BatchGetImage", "GetRole", "ListServiceQuotas", "GetProducts"}
    *said, price = front.allowed("train")
    assert [line.partition(" could not be checked (")[0] for line in said] == [
        "the image",
        "role kennel-execution",
        "the quota 'ml.g5.xlarge for training job usage'",
    ]
    assert said[1].endswith("(what answers is not AWS)")
    assert price.endswith("(a table of 2026-11 for us-east-1)")


def test_roles(front: Front) -> None:
    absent = front.refused("train", "--role", "arn:aws:iam::123456789012:role/none")
    assert "there is no role 'none' in this account" in absent
    policy = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sts:AssumeRole"}}
    policy["Statement"] |= {"Principal": {"Service": ["ec2.amazonaws.com"]}}  # type: ignore[operator]
    front.aws.client("iam").create_role(RoleName="other", AssumeRolePolicyDocument=json.dumps(policy))
    assert "role 'other' does not trust sagemaker.amazonaws.com" in front.refused("train", "--role", "other")
    foreign = front.refused("train", "--role", "arn:aws:iam::210987654321:role/kennel-execution")
    assert "is not of this account" in foreign
    assert "the role is missing" in front.refused("train", "--role", "")


def test_a_role_without_rights(front: Front) -> None:
    front.missing = {"s3:PutObject"}
    assert "role 'kennel-execution' may not s3:PutObject in bucket 'kennel-test-bucket'" in front.refused("train")
    grant = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::kennel-test-bucket/*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [grant]})
    front.aws.client("s3").put_bucket_policy(Bucket=front.aws.bucket, Policy=text)
    assert front.allowed("train")[0] == (
        "role kennel-execution has no right s3:PutObject of its own on arn:aws:s3:::kennel-test-bucket/kennel/x"
    )
    front.missing = {"ecr:BatchGetImage"}
    assert front.allowed("train")[0].startswith(
        "role kennel-execution has no right ecr:BatchGetImage of its own on arn"
    )


def test_a_role_without_the_rights_of_a_remote_shell(front: Front) -> None:
    front.missing = {"ssmmessages:CreateDataChannel", "ssmmessages:OpenDataChannel"}
    assert (
        "--remote-debug: role 'kennel-execution' may not ssmmessages:CreateDataChannel, ssmmessages:OpenDataChannel: "
        "add these rights to it, on *" in front.refused("train", "--remote-debug")
    )
    front.allowed("train")


def test_buckets(front: Front) -> None:
    assert "there is no bucket 'none-of-ours': create it in eu-west-1" in front.refused(
        "train", "--bucket", "none-of-ours"
    )
    front.denied = {"HeadBucket"}
    assert front.allowed("train")[0] == "bucket kennel-test-bucket could not be checked (403: Forbidden)"
    front.denied = set()
    place = {"LocationConstraint": "us-west-2"}
    keys = {"aws_access_key_id": "EMULATOR", "aws_secret_access_key": "none"}
    far = boto3.session.Session().client("s3", region_name="us-west-2", endpoint_url=front.aws.url, **keys)
    far.create_bucket(Bucket="far-away", CreateBucketConfiguration=place)
    assert "bucket 'far-away' lies in us-west-2, the launch in eu-west-1" in front.refused(
        "train", "--bucket", "far-away"
    )


def test_without_credentials_it_ends_at_once(front: Front) -> None:
    said = front.refused("train", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert "your AWS account: no AWS credentials were found" in said
