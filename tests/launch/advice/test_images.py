"""What is found out about an image without pulling it, and what of that SageMaker refuses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kennel.errors import UserError
from kennel_launch.advice import images

from ...emulated_aws.client import Aws
from ..conftest import REPOSITORY, Command
from ..front import FULL, OURS, Front, before

OCI = "application/vnd.oci.image.manifest.v1+json"
GPU = ("deploy", "--endpoint-instance-type", "ml.g5.xlarge")


@pytest.fixture
def front(aws: Aws, command: Command) -> Iterator[Front]:
    with before(aws, command) as front:
        yield front


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/kennel:1.2", ("eu-west-1", "team/kennel", "1.2")),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/kennel", ("eu-west-1", "kennel", "latest")),
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com/kennel:x", ("us-east-1", "kennel", "x")),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/kennel@sha256:0f", ("cn-north-1", "kennel", "sha256:0f")),
    ],
)
def test_an_address(address: str, parts: tuple[str, str, str]) -> None:
    found = images.address(address)
    assert (found.account, found.region, found.name, found.reference) == ("123456789012", *parts)


@pytest.mark.parametrize("address", ["kennel", "docker.io/kennel:1", "1.dkr.ecr.eu-west-1.amazonaws.com/kennel", ""])
def test_an_address_outside_ecr(address: str) -> None:
    with pytest.raises(UserError, match="does not lie in ECR"):
        images.address(address)


@pytest.mark.parametrize("kind", images.INDEXES)
def test_a_list_of_manifests_is_refused_everywhere(front: Front, kind: str) -> None:
    image = front.put_image("index", media_type=kind)
    for words in (("train",), ("deploy",), ("transform",), ("deploy", "--mode", "serverless")):
        said = front.refused(*words, image=image)
        assert f"is a list of manifests ({kind}), which SageMaker refuses" in said
        assert "--provenance=false" in said


def test_endpoints_have_refused_oci_s_own_manifest(front: Front) -> None:
    image = front.put_image("oci", media_type=OCI)
    assert front.allowed("deploy", image=image)[0].startswith("the image's manifest is OCI's")
    assert len(front.allowed("train", image=image)) == 1


def test_an_image_by_its_digest(front: Front) -> None:
    front.put_image("arm", architecture="arm64")
    digest = front.aws.client("ecr").describe_images(repositoryName="kennel", imageIds=[{"imageTag": "arm"}])
    address = f"{front.aws.image.partition(':')[0]}@{digest['imageDetails'][0]['imageDigest']}"
    said = front.refused("train", image=address)
    assert "is built for arm64, ml.g5.xlarge runs amd64: build it with --platform linux/amd64" in said


def test_an_arm_image_on_graviton(front: Front) -> None:
    image = front.put_image("arm", ("A=1",), architecture="arm64")
    lines = front.allowed("deploy", "--endpoint-instance-type", "ml.c7g.large", image=image)
    assert lines == ["ml.c7g.large: what it costs is not known here, see https://aws.amazon.com/sagemaker/pricing/"]


@pytest.mark.parametrize(
    ("env", "labels", "ami"),
    [
        (
            (FULL[0], "NVIDIA_REQUIRE_CUDA=cuda>=12.1 brand=tesla,driver>=470"),
            {},
            "al2-ami-sagemaker-inference-gpu-2-1",
        ),
        ((FULL[0], "CUDA_VERSION=12.4.1"), {}, "al2-ami-sagemaker-inference-gpu-3-1"),
        ((FULL[0],), {"kennel.cuda": "12.2"}, "al2-ami-sagemaker-inference-gpu-2-1"),
        ((FULL[0], "CUDA_VERSION=12.4.1"), {"kennel.cuda": "12.8"}, "al2-ami-sagemaker-inference-gpu-3-1"),
    ],
)
def test_the_cuda_version_is_what_the_label_or_the_base_says(
    front: Front, env: tuple[str, ...], labels: dict[str, str], ami: str
) -> None:
    assert f"InferenceAmiVersion: {ami}" in front.allowed(*GPU, image=front.put_image("cuda", env, labels=labels))


def test_no_cuda_version_is_said(front: Front) -> None:
    lines = front.allowed(*GPU, image=front.put_image("plain", FULL[:1]))
    assert lines[0].startswith("the image does not say its CUDA version")
    assert not any("AmiVersion" in line for line in lines)


def test_sizes(front: Front) -> None:
    slim = front.put_image("fat", (), size=10_000_000_001)
    assert "is over the 10 GB of a serverless endpoint" in front.refused("deploy", "--mode", "serverless", image=slim)
    assert "the image is of 10.0 GB, packed: hosts take long to pull it" in front.allowed("train")[:0] + front.allowed(
        "train", image=front.put_image("big", size=10_000_000_001)
    )
    fits = front.put_image("fits", (), size=10_000_000_000)
    assert len(front.allowed("deploy", "--mode", "serverless", image=fits)) == 1


def test_an_image_whose_inside_cannot_be_read_is_not_judged(front: Front) -> None:
    image = front.put_image("slim", ())
    front.denied = {"GetDownloadUrlForLayer"}
    lines = front.allowed("train", image=image)
    assert lines[0] == "what is inside the image could not be read, so that nothing of it was checked"


def test_our_images_are_told_by_what_the_dockerfile_sets() -> None:
    text = (REPOSITORY / "docker" / "Dockerfile").read_text()
    slim, full = text[text.index(" AS serve-cpu") :].split("FROM base AS image")
    for stage in (slim, full):
        assert 'ENTRYPOINT ["' + '", "'.join(OURS) + '"]' in stage
    assert "SAGEMAKER_TRAINING_MODULE=" in full
    assert "SAGEMAKER_TRAINING_MODULE" not in slim


def test_an_image_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "docker"
    inspected = (
        '{"Architecture": "arm64", "Size": 7000000000, "Config": {"Env": ["CUDA_VERSION=12.8.1", "A"], "Labels": null, '
        '"Entrypoint": null}, "Descriptor": {"mediaType": "application/vnd.oci.image.index.v1+json"}}'
    )
    client.write_text(f"#!/bin/sh\n[ \"$*\" = 'image inspect --format {{{{json .}}}} mine:1' ] && echo '{inspected}'\n")
    client.chmod(0o755)
    monkeypatch.setenv("DOCKER", str(client))
    found = images.local("mine:1")
    assert (found.architecture, found.unpacked, found.cuda, found.is_index) == ("arm64", 7_000_000_000, (12, 8), True)
    assert not found.ours
    with pytest.raises(UserError, match="docker image failed"):
        images.local("other:1")
