"""The peer: what course projects deploy, an eager torchvision network behind sagemaker-inference's four functions.

Nothing of Kennel is used here.
"""

import io
import json
import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models, transforms

TRANSFORM = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


def model_fn(model_dir: str) -> nn.Module:
    architecture = os.environ.get("ARCHITECTURE", "resnet50")
    if architecture == "resnet50":
        model = models.resnet50(num_classes=133)
    else:
        import timm

        model = timm.create_model(architecture, num_classes=133)
    model.load_state_dict(torch.load(Path(model_dir) / "model.pth", map_location="cpu"))
    return model.eval()


def input_fn(request_body: bytes, content_type: str) -> Image.Image:
    if content_type != "image/jpeg":
        raise ValueError(f"content type {content_type} is not supported")
    return Image.open(io.BytesIO(request_body)).convert("RGB")


def predict_fn(photo: Image.Image, model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(TRANSFORM(photo).unsqueeze(0))


def output_fn(prediction: Tensor, accept: str) -> tuple[str, str]:
    return json.dumps(prediction.softmax(1).tolist()), accept
